"""Measures the rendered service beside others, in one run, and prints ratios.

Absolute numbers are those of the machine. Ratios hold on a busy one as well, because
all take turns in short rounds and the best of each counts. Only of p99 it is the
median: the best round is the one without a pause of the garbage collector.

`python -m benchmarks.bench PART` measures one part: see PARTS.
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
from statistics import median
from time import perf_counter, sleep
from uuid import UUID

import asyncpg
import plumbum

sys.path.insert(0, str(Path(__file__).parents[1]))  # for `python benchmarks/bench.py`

from tests.support import rendering
from tests.support.clusters import own_cluster
from tests.support.servers import NETWORKED, binaries, launcher
from tests.support.service import free_port

HERE = Path(__file__).parent
POOL = 10  # what the default answers allow a process; all others get the same
LOADS = (POOL, 4 * POOL, 10 * POOL)
STARTS, START_TARGET = 5, 1.3
ROUTING_TARGET = 1.03
ROUNDS, SECONDS = 5, 1.6
ORDER = UUID(int=1)
SEED = """
    INSERT INTO orders (id, customer, status, created_at, updated_at)
    VALUES ($1, 'somebody', 'new', now(), now())
"""


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

# What to make of the rounds; of everything else the least counts.
SUMMARIES: dict[str, Callable[[list[float]], float]] = {
    "rate": max,
    "p99": median,
    "errors": sum,
    "connections": max,
    "opened": max,
}


@dataclass(frozen=True)
class Project:
    """The default answers, rendered and installed, and a server for all."""

    folder: Path
    server: str

    def program(self, name: str) -> Path:
        return self.folder / ".venv" / "bin" / name

    def environment(self, database: str, **changes: str) -> dict[str, str]:
        url = self.server.rpartition("/")[0] + "/" + database
        return rendering.environment(DATABASE_URL=url, **changes)


@contextmanager
def prepared(folder: Path) -> Iterator[Project]:
    """Render, install, start PostgreSQL, and give each contender a database."""
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
        subprocess.run(
            [project.program("alembic"), "upgrade", "head"],
            cwd=service,
            env=project.environment("postgres"),
            check=True,
        )
        asyncio.run(fill(server))
        yield project


async def fill(server: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(SEED, ORDER)
    await connection.close()
    # A database that is copied must have no other connections.
    connection = await asyncpg.connect(server.rpartition("/")[0] + "/template1")
    for contender in CONTENDERS:
        await connection.execute(
            f'CREATE DATABASE "{contender.name}" TEMPLATE postgres'
        )
    await connection.close()


@contextmanager
def serving(
    project: Project, app: str, database: str, log_level: str = "INFO"
) -> Iterator[tuple[int, int]]:
    """Yield port and process id of a server as soon as it answers."""
    port = free_port()
    options = ("--no-access-log", "--host=127.0.0.1", f"--port={port}", "--factory")
    process = subprocess.Popen(
        [project.program("uvicorn"), *options, f"--app-dir={HERE}", app],
        cwd=project.folder,
        env=project.environment(database, LOG_LEVEL=log_level),
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


def answers(port: int) -> bool:
    """Whether a server answers, with any status."""
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
def loading(project: Project) -> Iterator[Callable[..., Numbers]]:
    """Yield a function that loads a server; its keywords are the fields of a Job."""
    with subprocess.Popen(
        [project.program("python"), HERE / "load.py"],
        env=project.environment("postgres"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        requests, replies = process.stdin, process.stdout

        def load(**job: object) -> Numbers:
            print(json.dumps(job), file=requests, flush=True)
            numbers: Numbers = json.loads(replies.readline())
            return numbers

        yield load


def measure_start(project: Project, rounds: int) -> tuple[float, float]:
    """Seconds of the bare application and of ours, each from spawn to answer."""

    def start(app: str) -> float:
        started = perf_counter()
        with serving(project, app, "rendered"):
            return perf_counter() - started

    apps = ("rivals:bare", "service.main:create_app")
    for app in apps:
        start(app)  # compiles the bytecode
    bare, ours = zip(*(map(start, apps) for _ in range(rounds)), strict=True)
    return min(bare), min(ours)


def measure_load(project: Project, rounds: int, seconds: float) -> Results:
    seen: dict[tuple[int, Contender], list[Numbers]] = {}
    with ExitStack() as stack:
        load = stack.enter_context(loading(project))
        servers = {
            contender: stack.enter_context(
                serving(project, contender.app, contender.name, contender.log_level)
            )
            for contender in CONTENDERS
        }
        for _ in range(rounds):
            for clients in LOADS:
                for contender, (port, pid) in servers.items():
                    numbers = load(
                        port=port,
                        pid=pid,
                        path=f"/probe/{ORDER}",
                        database=contender.name,
                        clients=clients,
                        seconds=seconds,
                    )
                    seen.setdefault((clients, contender), []).append(numbers)
    return {key: summary(numbers) for key, numbers in seen.items()}


def summary(rounds: list[Numbers]) -> Numbers:
    return {
        name: SUMMARIES.get(name, min)([numbers[name] for numbers in rounds])
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


def measure_reads(folder: Path, *numbers: int) -> dict[str, Numbers]:
    """By driver, the CPU of a read: see reads.py."""
    found = {}
    for driver in NETWORKED:
        project = folder / driver / "service"
        rendering.render(folder / "template", project, {"driver": driver})
        command = ["uv", "run", "--quiet", "python", "tests/database.py", "python"]
        done = subprocess.run(
            [*command, HERE / "reads.py", *map(str, numbers)],
            cwd=project,
            env=rendering.environment(),
            check=True,
            capture_output=True,
            text=True,
        )
        found[driver] = json.loads(done.stdout)
    return found


def show_reads(found: dict[str, Numbers]) -> None:
    rivals = list(next(iter(found.values())))
    rows = [("CPU us of a read", *rivals, "to plain", "what is added")]
    for driver, numbers in found.items():
        plain = numbers["plain pool"]
        added = numbers["service"] - plain
        ping = numbers["plain pool, pre_ping"] - plain
        cells = [f"{numbers[rival]:.0f}" for rival in rivals]
        ratios = (f"{numbers['service'] / plain:.2f}x", f"{added / ping:.2f}x a ping")
        rows.append((driver, *cells, *ratios))
    for title, *row in rows:
        print(f"{title:18}" + "".join(f"{cell:>23}" for cell in row))
    print()


def measure_tasks(folder: Path, *numbers: int) -> dict[str, Numbers]:
    """What one worker does, two at a time: see tasks.py."""
    project = folder / "tasks" / "service"
    rendering.render(folder / "template", project, {"with_celery": True})
    command = ["uv", "run", "--quiet", "python", "tests/database.py"]
    command += ["python", "tests/broker.py", "python"]
    done = subprocess.run(
        [*command, HERE / "tasks.py", *map(str, numbers)],
        cwd=project,
        env=rendering.environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return {kind: summary(all_) for kind, all_ in json.loads(done.stdout).items()}


def show_tasks(found: dict[str, Numbers]) -> None:
    ours, rival = found["rendered"], found["null_pool"]
    rows = [("Tasks, 2 at a time", "tasks/s", "ratio", "connections", "target")]
    for title, numbers, target in (
        ("a loop and NullPool for each", rival, ""),
        ("rendered worker", ours, "at least 2x"),
    ):
        cells = (
            f"{numbers['rate']:.0f}",
            f"{numbers['rate'] / rival['rate']:.2f}x",
            f"{numbers['connections']:.0f}",
        )
        rows.append((title, *cells, target))
    show(rows)


def measure_replicas(folder: Path, *numbers: int) -> Numbers:
    """What it costs to read from a replica: see replicas.py."""
    project = folder / "replicas" / "service"
    rendering.render(folder / "template", project, {"with_replicas": True})
    with own_cluster("postgresql") as cluster:
        primary, replicas = cluster.database("bench")
        done = subprocess.run(
            [
                "uv",
                "run",
                "--quiet",
                "python",
                HERE / "replicas.py",
                *map(str, numbers),
            ],
            cwd=project,
            env=rendering.environment(
                DATABASE_URL=primary, DATABASE_REPLICA_URLS=replicas[0]
            ),
            check=True,
            capture_output=True,
            text=True,
        )
    found: Numbers = json.loads(done.stdout)
    return found


def show_replicas(found: Numbers) -> None:
    alone, replica = found["primary alone"], found["replica"]
    show(
        [
            ("CPU us of a read", "primary", "replica", "ratio", "target"),
            (
                *("asyncpg", f"{alone:.0f}", f"{replica:.0f}"),
                *(f"{replica / alone:.2f}x", f"up to {ROUTING_TARGET}x"),
            ),
            ("ms until a write is seen", "", f"{found['wait']:.1f}", "", "below 5"),
        ]
    )


def bench_start(project: Project, _: Path, *, quick: bool) -> None:
    show_start(*measure_start(project, rounds=1 if quick else STARTS))


def bench_tasks(_: Project, folder: Path, *, quick: bool) -> None:
    show_tasks(measure_tasks(folder, *((1, 200) if quick else (3, 1000))))


def bench_reads(_: Project, folder: Path, *, quick: bool) -> None:
    show_reads(measure_reads(folder, *((1, 500) if quick else (7, 1500))))


def bench_replicas(_: Project, folder: Path, *, quick: bool) -> None:
    numbers = (1, 500, 20) if quick else (9, 1500, 300)
    show_replicas(measure_replicas(folder, *numbers))


def bench_load(project: Project, _: Path, *, quick: bool) -> None:
    results = measure_load(project, *((1, 1) if quick else (ROUNDS, SECONDS)))
    for clients in LOADS:
        show_load(clients, results)
    for clients in LOADS:
        show_ratios(clients, results)
    print(
        "One uvicorn process each, one row by its key; the best of all rounds, of p99"
        " the\nmedian. The rendered service logs a line of JSON per request, to"
        " /dev/null: (a) and\n(b) log nothing. More req/s are better, less of"
        " everything else.\n"
    )


PARTS: dict[str, Callable[..., None]] = {
    "start": bench_start,
    "tasks": bench_tasks,
    "reads": bench_reads,
    "replicas": bench_replicas,
    "load": bench_load,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the rendered service beside others, in one run."
    )
    parser.add_argument("part", nargs="*", help=f"all, or of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s each")
    arguments = parser.parse_args()
    if unknown := {*arguments.part} - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(dir="/tmp") as temporary, ExitStack() as stack:
        folder, began = Path(temporary), perf_counter()
        project = stack.enter_context(prepared(folder))
        show_duration("prepared", began)
        for part in arguments.part or PARTS:
            began = perf_counter()
            PARTS[part](project, folder, quick=arguments.quick)
            show_duration(part, began)


def show_duration(part: str, began: float) -> None:
    print(f"[{part}: {perf_counter() - began:.0f} s]\n", flush=True)


if __name__ == "__main__":
    main()
