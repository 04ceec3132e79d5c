"""Applications under uvicorn, one process each, and the process that loads them."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

from benchmarks.projects import HERE, Project
from benchmarks.workloads import Cell
from tests.support.service import free_port

Numbers = dict[str, float]
CONTENDERS = ("ours", "articles", "floor", "bare")


@dataclass(frozen=True)
class Running:
    port: int
    pid: int
    log: Path  # of errors

    def get(self, path: str) -> int:
        """The status of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def lines(self, path: str, seconds: float) -> int:
        """Read an answer for so many seconds, keep nothing, and count its lines."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer, number = connection.getresponse(), 0
        end = perf_counter() + seconds
        try:
            while perf_counter() < end and (part := answer.read(1 << 16)):
                number += part.count(b"\n")
        except HTTPException as error:
            raise RuntimeError(f"{path}: {self.log.read_text()[-2000:]}") from error
        connection.close()
        return number

    def memory(self, kind: str) -> float:
        """MB: VmRSS is what the process has, VmHWM the most since reset_peak()."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) / 1024

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@contextmanager
def serving(project: Project, app: str, **variables: str) -> Iterator[Running]:
    """Yield a server as soon as it answers."""
    port = free_port()
    options = ("--no-access-log", "--host=127.0.0.1", f"--port={port}", "--factory")
    log = project.folder / f"{app.replace(':', '-')}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [project.program("uvicorn"), *options, f"--app-dir={HERE}/apps", app],
            cwd=project.folder,
            env=project.environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the lines of the log
            stderr=errors,
        )
    try:
        running = Running(port, process.pid, log)
        while not answers(running):
            if process.poll() is not None:
                raise RuntimeError(f"{app} ended:\n{log.read_text()}")
            sleep(0.002)
        yield running
    finally:
        process.kill()  # it has nothing to lose
        process.wait()


def answers(running: Running) -> bool:
    """Whether a server answers, with any status."""
    try:
        return bool(running.get("/livez"))
    except ConnectionError:
        return False


Load = Callable[[Running, Cell], Numbers]


@contextmanager
def loading(project: Project) -> Iterator[Load]:
    """Yield a function that loads a server."""
    with subprocess.Popen(
        [project.program("python"), HERE / "programs" / "load.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        requests, replies = process.stdin, process.stdout

        def load(running: Running, cell: Cell) -> Numbers:
            job = {"port": running.port, "pid": running.pid, **asdict(cell)}
            print(json.dumps(job), file=requests, flush=True)
            numbers: Numbers = json.loads(replies.readline())
            if failure := numbers.get("failure"):
                log = running.log.read_text()[-2000:]
                raise RuntimeError(f"{cell.requests[0]}: {failure}\n{log}")
            return numbers

        yield load


def compare(
    project: Project,
    cells: dict[str, Cell],
    rounds: int,
    contenders: tuple[str, ...] = CONTENDERS,
) -> dict[str, dict[str, Numbers]]:
    """Medians by cell and contender; all take turns in short rounds.

    So the load of the machine, which changes, is the same for all.
    """
    seen: dict[str, dict[str, list[Numbers]]] = {
        name: {each: [] for each in contenders} for name in cells
    }
    with ExitStack() as stack:
        load = stack.enter_context(loading(project))
        servers = {
            each: stack.enter_context(serving(project, f"{each}:app"))
            for each in contenders
        }
        for each in contenders:  # opens its connections
            load(servers[each], Cell(next(iter(cells.values())).requests))
        for turn in range(rounds):
            for name, cell in cells.items():
                for each in contenders[:: -1 if turn % 2 else 1]:
                    seen[name][each].append(load(servers[each], cell))
    return {
        name: {each: medians(rounds) for each, rounds in by_contender.items()}
        for name, by_contender in seen.items()
    }


def medians(rounds: list[Numbers]) -> Numbers:
    """A round without an answer has no latency."""
    names = dict.fromkeys(name for each in rounds for name in each)
    return {
        name: median(each[name] for each in rounds if name in each) for name in names
    }
