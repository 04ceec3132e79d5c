"""Loads servers in a closed loop, from a process of its own: JSON in, JSON out.

Not wrk, oha or hey: none of them waits as long as the Retry-After of each answer says,
nor tells the latency of an answer from that of a rejection.
"""

# It runs where the service is installed, and not where the tools are.
# mypy: disable-error-code="import-not-found"

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import cast

import uvloop

ACCEPT_SECONDS = 0.1
LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
RETRY = re.compile(rb"\r\nretry-after: (\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """Which server, what to ask it, by how many clients, and for how long.

    Each request is a method, a path and a body; a client sends them in turn, and heeds
    Retry-After if it is polite.
    """

    port: int
    pid: int
    requests: list[tuple[str, str, str]]
    clients: int
    seconds: float
    warm_up: float
    is_polite: bool


@dataclass
class Tally:
    latencies: list[float] = field(default_factory=list)
    refusals: int = 0
    failure: str = ""  # the last answer that is neither


class Client(asyncio.Protocol):
    """One connection; the next request leaves when the answer has arrived."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, job: Job) -> None:
        self._requests = requests
        self._answer = b""
        self._job = job
        self.tally = tally

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        if self.transport.is_closing():  # the time was up during a pause
            return
        self._answer = b""
        self._asked_at = perf_counter()
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        pause = 0
        if head.startswith(b"HTTP/1.1 20"):
            self.tally.latencies.append(perf_counter() - self._asked_at)
        elif head.startswith(b"HTTP/1.1 503 "):
            self.tally.refusals += 1
            if self._job.is_polite and (found := RETRY.search(head)):
                pause = int(found[1])
        else:
            self.tally.failure = self._answer.decode(errors="replace")
        if pause:
            asyncio.get_running_loop().call_later(pause, self.ask)
        else:
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        self.tally.failure = self.tally.failure or "The connection was lost."


async def connect(job: Job) -> list[Client]:
    requests = [
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
        f"\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for method, path, body in job.requests
    ]
    clients = [await connect_one(job, requests, n) for n in range(job.clients)]
    # A busy server accepts few at a time: that wait is not what is measured here.
    await asyncio.sleep(ACCEPT_SECONDS)
    return clients


async def connect_one(job: Job, requests: list[bytes], number: int) -> Client:
    """Each client begins with another request."""
    first = number % len(requests)
    own = cycle(requests[first:] + requests[:first])
    _, client = await asyncio.get_running_loop().create_connection(
        lambda: Client(own, Tally(), job), "127.0.0.1", job.port
    )
    return client


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    seconds = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError):  # of a thread that has just ended
            seconds += int(path.read_text().split()[0]) / 1e9
    return seconds


async def measure(job: Job) -> dict[str, float | str]:
    clients = await connect(job)
    for client in clients:
        client.ask()
    await asyncio.sleep(job.warm_up)
    tally = Tally()
    for client in clients:
        client.tally = tally
    cpu, started = cpu_seconds(job.pid), perf_counter()
    await asyncio.sleep(job.seconds)
    cpu, seconds = cpu_seconds(job.pid) - cpu, perf_counter() - started
    latencies, refusals, failure = (
        sorted(tally.latencies),
        tally.refusals,
        tally.failure,
    )
    for client in clients:
        client.transport.abort()
    if failure:
        return {"failure": failure}
    count = len(latencies)
    found: dict[str, float | str] = {
        "rate": count / seconds,
        "refused": refusals / seconds,
        "cpu": cpu / max(1, count + refusals),
    }
    if latencies:
        found["p50"] = latencies[count // 2]
        found["p99"] = latencies[count * 99 // 100]
    return found


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(measure(Job(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
