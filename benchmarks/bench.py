"""Measures the rendered service beside others, in one run, and prints ratios.

Absolute numbers tell about the machine. The ratios of rounds that took turns, each the
best that was seen, hold on a busy one as well.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from time import perf_counter, sleep
from uuid import UUID

import asyncpg
import plumbum

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python benchmarks/bench.py`

from tests import rendering
from tests.servers import binaries, launcher
from tests.service import free_port

HERE = Path(__file__).parent
POOL = 10  # what the default answers allow a process; all others get the same
LOADS = (POOL, 4 * POOL, 10 * POOL)
STARTS = 5
ROUNDS, SECONDS = 3, 2
START_TARGET = 1.3
ORDER = UUID(int=1)
SEED = """
    INSERT INTO orders (id, customer, status, created_at)
    VALUES ($1, 'somebody', 'new', now())
"""
SERVE = ("uvicorn", "--no-access-log", "--host", "127.0.0.1", "--factory")


@dataclass(frozen=True)
class Contender:
    name: str  # of its database too, which tells its connections apart
    title: str
    app: str
    log_level: str = "INFO"


LIMIT = Contender("limit", "(a) Starlette + asyncpg", "rivals:limit")
ARTICLES = Contender("articles", "(b) as articles show", "rivals:articles")
OURS = (
    Contender("rendered", "(c) rendered service", "rivals:rendered"),
    Contender("quiet", "    with LOG_LEVEL=WARNING", "rivals:rendered", "WARNING"),
    Contender("stock", "(d) on the stock pool", "rivals:stock"),
)
CONTENDERS = (LIMIT, ARTICLES, *OURS)

Numbers = dict[str, float]
Results = dict[tuple[int, Contender], Numbers]


class Project:
    """The default answers, rendered and installed; one PostgreSQL for everybody."""

    def __init__(self, folder: Path, server: str) -> None:
        self._folder = folder
        self._server = server

    def environment(self, database: str, **changes: str) -> dict[str, str]:
        url = self._server.rpartition("/")[0] + "/" + database
        return rendering.environment(DATABASE_URL=url, **changes)

    def run(self, database: str, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._folder / ".venv" / "bin" / program, *arguments],
            cwd=self._folder,
            env=self.environment(database),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        return done.stdout

    @contextmanager
    def serving(
        self, app: str, database: str, log_level: str = "INFO"
    ) -> Iterator[tuple[int, int]]:
        """Yield port and process id of a server as soon as it answers."""
        port = free_port()
        process = subprocess.Popen(
            [
                self._folder / ".venv" / "bin" / SERVE[0],
                *SERVE[1:],
                f"--app-dir={HERE}",
                f"--port={port}",
                app,
            ],
            cwd=self._folder,
            env=self.environment(database, LOG_LEVEL=log_level),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            while not answers(port):
                if process.poll() is not None:
                    raise RuntimeError(f"{app} ended before its first answer.")
                sleep(0.005)
            yield port, process.pid
        finally:
            process.kill()  # it has nothing to lose
            process.wait()

    def load(
        self, contender: Contender, port: int, pid: int, clients: int, seconds: float
    ) -> Numbers:
        path = f"/probe/{ORDER}"
        arguments = (path, contender.name, port, pid, clients, seconds)
        load = str(HERE / "load.py")
        numbers: Numbers = json.loads(
            self.run("postgres", "python", load, *map(str, arguments))
        )
        return numbers


def answers(port: int) -> bool:
    """Tell whether a server is there, whatever it thinks of the request."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/livez")
        connection.getresponse().read()
    except ConnectionError:
        return False
    finally:
        connection.close()
    return True


@contextmanager
def prepared(folder: Path) -> Iterator[Project]:
    """Render, install, start the server, and give each contender a database."""
    folder.chmod(0o755)  # PostgreSQL may run as another user
    home = rendering.isolate(folder / "home")
    os.environ.update(home)
    # Copier runs git by plumbum, which has copied the environment already.
    plumbum.local.env.update(home)
    template = rendering.snapshot(folder / "template")
    service = rendering.render(template, folder / "service", {})
    subprocess.run(
        ["uv", "sync", "--quiet", "--no-dev"],
        cwd=service,
        env=rendering.environment(),
        check=True,
    )
    with launcher.started(binaries(), folder / "data") as server:
        project = Project(service, server)
        project.run("postgres", "alembic", "upgrade", "head")
        asyncio.run(fill(server))
        yield project


async def fill(server: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(SEED, ORDER)
    await connection.close()
    # The database that is copied must have no visitors.
    connection = await asyncpg.connect(server.rpartition("/")[0] + "/template1")
    for contender in CONTENDERS:
        await connection.execute(
            f'CREATE DATABASE "{contender.name}" TEMPLATE postgres'
        )
    await connection.close()


def measure_start(project: Project, rounds: int) -> tuple[float, float]:
    """Seconds of the bare application and of ours, each from spawn to answer."""

    def start(app: str) -> float:
        started = perf_counter()
        with project.serving(app, "rendered"):
            return perf_counter() - started

    apps = ("rivals:bare", "service.main:create_app")
    for app in apps:
        start(app)  # compiles the bytecode
    bare, ours = zip(*(map(start, apps) for _ in range(rounds)), strict=True)
    return min(bare), min(ours)


def measure_load(project: Project, rounds: int, seconds: float) -> Results:
    """Let everybody take turns at each load, and keep the best of each number."""
    seen: dict[tuple[int, Contender], list[Numbers]] = {}
    with ExitStack() as stack:
        servers = {
            contender: stack.enter_context(
                project.serving(contender.app, contender.name, contender.log_level)
            )
            for contender in CONTENDERS
        }
        for _ in range(rounds):
            for clients in LOADS:
                for contender, (port, pid) in servers.items():
                    numbers = project.load(contender, port, pid, clients, seconds)
                    seen.setdefault((clients, contender), []).append(numbers)
    return {key: best(numbers) for key, numbers in seen.items()}


def best(rounds: list[Numbers]) -> Numbers:
    """Pick the fastest of each; errors add up, of connections the most count."""
    pick: dict[str, Callable[[list[float]], float]] = {
        "rate": max,
        "errors": sum,
        "connections": max,
        "opened": max,
    }
    return {
        name: pick.get(name, min)([numbers[name] for numbers in rounds])
        for name in rounds[0]
    }


def show(rows: Iterable[Iterable[str]]) -> None:
    for title, *cells in rows:
        print(f"{title:28}" + "".join(f"{cell:>13}" for cell in cells))
    print()


def show_start(bare: float, ours: float) -> None:
    target = f"at most {START_TARGET}x"
    show(
        [
            ("From spawn to first answer", "ms", "ratio", "target"),
            ("bare FastAPI, same imports", f"{bare * 1000:.0f}", "1.00x"),
            ("rendered service", f"{ours * 1000:.0f}", f"{ours / bare:.2f}x", target),
        ]
    )


def show_load(clients: int, results: Results) -> None:
    head = ("req/s", "CPU us each", "p50 ms", "p99 ms", "errors", "connections")
    rows = [(f"{clients} clients, pools of {POOL}", *head, "newly opened")]
    for contender in CONTENDERS:
        numbers = results[clients, contender]
        cells = (
            f"{numbers['rate']:.0f}",
            f"{numbers['cpu'] * 1e6:.0f}",
            f"{numbers['p50'] * 1000:.1f}",
            f"{numbers['p99'] * 1000:.1f}",
            f"{numbers['errors']:.0f}",
            f"{numbers['connections']:.0f}",
            f"{numbers['opened']:.0f}",
        )
        rows.append((contender.title, *cells))
    show(rows)


def show_ratios(clients: int, results: Results) -> None:
    names = {"rate": "req/s", "cpu": "CPU", "p50": "p50", "p99": "p99"}
    head = [f"{title} to {to}" for title in names.values() for to in "ab"]
    rows = [(f"{clients} clients, ratios", *head)]
    for contender in CONTENDERS:
        cells = [
            f"{results[clients, contender][name] / results[clients, rival][name]:.2f}x"
            for name in names
            for rival in (LIMIT, ARTICLES)
        ]
        rows.append((contender.title, *cells))
    show(rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the rendered service beside others, in one run."
    )
    parser.add_argument("--quick", action="store_true", help="one round of 1 s each")
    quick = parser.parse_args().quick
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        prepared(Path(folder)) as project,
    ):
        python = project.run("postgres", "python", "--version").strip()
        print(f"{python}, {os.cpu_count()} CPUs\n")
        show_start(*measure_start(project, rounds=1 if quick else STARTS))
        results = measure_load(project, *((1, 1) if quick else (ROUNDS, SECONDS)))
    for clients in LOADS:
        show_load(clients, results)
    for clients in LOADS:
        show_ratios(clients, results)
    print(
        "One uvicorn process each, one row by its key; the best of each number. The"
        " rendered\nservice logs a line of JSON per request, to /dev/null: (a) and (b)"
        " log nothing.\nMore req/s are better, less of everything else."
    )


if __name__ == "__main__":
    main()
