"""Loads servers in a closed loop, from a process of its own: JSON in, JSON out."""

# It runs where the service is installed, and not where the tools are.
# mypy: disable-error-code="import-not-found"

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import cast

import asyncpg
import uvloop

ACCEPT_SECONDS = 0.1
WARM_UP_SECONDS = 0.3
SAMPLE_SECONDS = 0.25
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
OPENED = "SELECT sessions FROM pg_stat_database WHERE datname = $1"


@dataclass(frozen=True)
class Job:
    """Which server, whose database, and how hard for how long."""

    port: int
    pid: int
    path: str
    database: str
    clients: int
    seconds: float


@dataclass
class Tally:
    latencies: list[float] = field(default_factory=list)
    errors: int = 0


class Client(asyncio.Protocol):
    """One connection; the next request leaves when the answer has arrived."""

    def __init__(self, request: bytes, tally: Tally) -> None:
        self._request = request
        self._answer = b""
        self.tally = tally

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        self._answer = b""
        self._asked_at = perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, _, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self.tally.latencies.append(perf_counter() - self._asked_at)
        self.tally.errors += not head.startswith(b"HTTP/1.1 200 ")
        self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        self.tally.errors += 1


async def connect(job: Job) -> list[Client]:
    request = f"GET {job.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(job.clients):
        _, client = await loop.create_connection(
            lambda: Client(request, Tally()), "127.0.0.1", job.port
        )
        clients.append(client)
    # A busy server accepts few at a time: that wait is not what is measured here.
    await asyncio.sleep(ACCEPT_SECONDS)
    return clients


async def watch(job: Job) -> tuple[int, int]:
    """Wait, and return how many connections its database had, and how many new ones."""
    server = await asyncpg.connect(os.environ["DATABASE_URL"])
    before = await server.fetchval(OPENED, job.database)
    most = 0
    end = perf_counter() + job.seconds
    while perf_counter() < end:
        await asyncio.sleep(min(SAMPLE_SECONDS, max(0, end - perf_counter())))
        most = max(most, await server.fetchval(CONNECTIONS, job.database))
    opened = await server.fetchval(OPENED, job.database) - before
    await server.close()
    return most, opened


def cpu_seconds(pid: int) -> float:
    """User and system time of the process; the name before it may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(job: Job) -> dict[str, float]:
    clients = await connect(job)
    for client in clients:
        client.ask()
    await asyncio.sleep(WARM_UP_SECONDS)
    tally = Tally()
    for client in clients:
        client.tally = tally
    cpu, started = cpu_seconds(job.pid), perf_counter()
    connections, opened = await watch(job)
    cpu, seconds = cpu_seconds(job.pid) - cpu, perf_counter() - started
    latencies, errors = sorted(tally.latencies), tally.errors
    for client in clients:
        client.transport.abort()
    count = len(latencies)
    return {
        "rate": count / seconds,
        "cpu": cpu / count,
        "p50": latencies[count // 2],
        "p99": latencies[count * 99 // 100],
        "errors": errors,
        "connections": connections,
        "opened": opened,
    }


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(uvloop.run(measure(Job(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
