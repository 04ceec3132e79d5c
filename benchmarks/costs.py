"""What is measured once: a start, a worker's memory, a rejection, tasks, traces, and
what the metrics and the log of a request add.
"""

import json
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from benchmarks.parts import Effort
from benchmarks.projects import POOL, Project, Workshop
from benchmarks.report import Row, at_least, at_most
from benchmarks.serving import Load, Numbers, Running, loading, medians, serving
from benchmarks.workloads import GET, PLAIN, Cell
from tests.support.clusters import own_cluster
from tests.support.collector import collecting
from tests.support.servers import Redis
from tests.support.service import Service

START, MEMORY_MB, REJECTION_US, ROUTING, TRACED = 1.2, 90, 60, 1.03, 1.1
# As many times as many rounds, of half the time: a small difference of two services is
# the median of what each pair of rounds says.
DIFFERENCE = 6
OBSERVED_US = 53  # what the line in the log alone took, as a record of `logging`
# What a service imports of libraries.
IMPORTED = """
import sys
before = {*sys.modules}
import service.main
names = {name for name in sys.modules if not name.startswith(("service", "_"))}
print(*sorted(names - before))
"""


def refusal(shop: Workshop, effort: Effort) -> list[Row]:
    """A request that is rejected, by a service whose pool stays full."""
    project = shop.project()
    cell = Cell((GET,), 4 * POOL, seconds=effort.seconds)
    with serving(project, "ours:full") as server, loading(project) as load:
        server.get("/fill")
        found = medians([load(server, cell) for _ in range(effort.rounds)])
    row = ("refusal", "asyncpg, full", "a rejection", found["cpu"] * 1e6, "us of CPU")
    return [Row(*row, at_most(REJECTION_US), {"ours": found})]


def start(shop: Workshop, effort: Effort) -> list[Row]:
    """From spawn to the first answer, and the memory of a worker that has worked."""
    rows = []
    for setting, project in (
        ("asyncpg", shop.project()),
        ("replicas, Celery", everything(shop)),
        (
            "replicas, Celery, tracing, PgBouncer",
            shop.pooled(with_replicas=True, with_celery=True, with_tracing=True),
        ),
    ):
        ratio = start_ratio(project, effort.rounds)
        row = ("start", setting, "start", ratio, "x bare FastAPI")
        rows.append(Row(*row, at_most(START)))
        with serving(project, "ours:app") as server, loading(project) as load:
            load(server, Cell((GET,), seconds=effort.seconds))
            memory = server.memory("VmRSS")
        row = ("start", setting, "memory of a worker", memory, "MB")
        rows.append(Row(*row, at_most(MEMORY_MB)))
    return rows


def start_ratio(project: Project, rounds: int) -> float:
    """To FastAPI with the same imports."""
    imports = project.run("python", "-c", IMPORTED)
    bare, ours = "imports:app", "service.main:create_app"
    taken: dict[str, list[float]] = {bare: [], ours: []}
    for turn in range(1 + rounds):
        for app, seconds in taken.items():
            began = perf_counter()
            with serving(project, app, BENCH_IMPORTS=imports):
                if turn:  # the first one compiles the bytecode
                    seconds.append(perf_counter() - began)
    return median(taken[ours]) / median(taken[bare])


def everything(shop: Workshop) -> Project:
    return shop.project(with_replicas=True, with_celery=True)


def replicas(shop: Workshop, effort: Effort) -> list[Row]:
    """A read from a replica, and a write that the next read has to see."""
    with own_cluster("postgresql") as cluster:
        primary, others = cluster.database("bench")
        variables = {"DATABASE_URL": primary, "DATABASE_REPLICA_URLS": others[0]}
        numbers = effort.numbers(9, 1500, 300)
        found = json.loads(everything(shop).measure("replicas", *numbers, **variables))
    ratio = found["replica"] / found["primary alone"]
    row = ("replicas", "asyncpg", "CPU of a read", ratio, "x primary alone")
    seen = ("replicas", "asyncpg", "until a write is seen", found["wait"], "ms")
    return [Row(*row, at_most(ROUTING)), Row(*seen, at_most(5))]


def tasks(shop: Workshop, effort: Effort) -> list[Row]:
    """Tasks a second of a worker with two processes."""
    project, numbers = everything(shop), effort.numbers(2, 500)
    with (
        TemporaryDirectory(dir="/tmp") as folder,
        Redis(Path(folder) / "redis") as redis,
    ):
        redis.start()
        measured = project.measure("tasks", *numbers, CELERY_BROKER_URL=redis.url)
    rates = {
        kind: median(each["rate"] for each in rounds)
        for kind, rounds in json.loads(measured).items()
    }
    ratio = rates["rendered"] / rates["null_pool"]
    row = ("tasks", "Celery", "tasks", ratio, "x a loop and NullPool each")
    return [Row(*row, at_least(2))]


def observing(shop: Workshop, effort: Effort) -> list[Row]:
    """CPU that the metrics and the line in the log of a request take together."""
    project, cell = shop.project(), Cell((PLAIN,), seconds=effort.seconds / 2)
    with (
        serving(project, "ours:app") as whole,
        serving(project, "ours:unobserved") as without,
        loading(project) as load,
    ):
        servers = {"ours": whole, "unobserved": without}
        found = in_turn(load, servers, cell, DIFFERENCE * effort.rounds)
    pairs = zip(found["ours"], found["unobserved"], strict=True)
    added = median(ours["cpu"] - other["cpu"] for ours, other in pairs) * 1e6
    row = ("observing", "no session", "metrics and log", added, "us of CPU")
    return [Row(*row, at_most(OBSERVED_US), {"ours": medians(found["ours"])})]


def tracing(shop: Workshop, effort: Effort) -> list[Row]:
    """CPU of a read with one trace in ten exported, and without tracing."""
    plain, traced = shop.project(), shop.project(with_tracing=True)
    cell = Cell((GET,), seconds=effort.seconds / 2)
    with (
        TemporaryDirectory(dir="/tmp") as folder,
        collecting(Service(traced.folder), Path(folder)) as collector,
        serving(plain, "ours:app") as without,
        serving(traced, "ours:app", **collector.endpoint) as with_spans,
        loading(plain) as load,
    ):
        servers = {"ours": without, "traced": with_spans}
        found = in_turn(load, servers, cell, DIFFERENCE * effort.rounds)
        assert collector.spans()
    pairs = zip(found["traced"], found["ours"], strict=True)
    ratio = median(traced["cpu"] / ours["cpu"] for traced, ours in pairs)
    row = ("tracing", "asyncpg, 1 in 10", "CPU of a read", ratio, "x without tracing")
    return [Row(*row, at_most(TRACED))]


def in_turn(
    load: Load, servers: dict[str, Running], cell: Cell, rounds: int
) -> dict[str, list[Numbers]]:
    """The rounds of servers that take turns."""
    seen: dict[str, list[Numbers]] = {name: [] for name in servers}
    for turn in range(rounds):
        for name in [*servers][:: -1 if turn % 2 else 1]:
            seen[name].append(load(servers[name], cell))
    return seen
