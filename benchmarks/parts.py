"""What is measured: each part returns the rows of its workloads."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.projects import POOL, Workshop
from benchmarks.report import Row, at_least, at_most, ratio
from benchmarks.serving import compare
from benchmarks.workloads import KEPT, SLOW, WORKLOADS, Cell

MUST = dict(zip(WORKLOADS, (1.5, 2.0, 2.4, 2.0, 2.2, None), strict=True))
READ_KEPT = "read one, kept statement"
# Statements of 100 ms on ten connections.
SLOW_CLIENTS = (POOL, 4 * POOL, 10 * POOL, 40 * POOL, 64 * POOL)
GOODPUT = {40 * POOL: 0.9, 64 * POOL: 0.85}


@dataclass(frozen=True)
class Effort:
    """How often and how long, and how many of what programs repeat."""

    rounds: int
    seconds: float
    is_quick: bool = False

    def numbers(self, *numbers: int) -> tuple[int, ...]:
        """Rounds, and repetitions in each."""
        if not self.is_quick:
            return numbers
        return (1, *(max(20, number // 10) for number in numbers[1:]))


FULL, QUICK = Effort(5, 0.8), Effort(1, 0.2, is_quick=True)


def workloads(shop: Workshop, effort: Effort) -> list[Row]:
    """Each request of the example, on asyncpg."""
    cells = {
        name: Cell(requests, seconds=effort.seconds)
        for name, requests in WORKLOADS.items()
    }
    found = compare(shop.project(), cells, effort.rounds)
    return [
        ratio("workloads", "asyncpg", name, found[name], MUST[name]) for name in cells
    ]


def drivers(shop: Workshop, effort: Effort) -> list[Row]:
    """The same on the other drivers, each against its own articles' wiring."""
    cells = {
        name: Cell(requests, seconds=effort.seconds / 2)
        for name, requests in WORKLOADS.items()
    }
    rows = []
    for driver in ("psycopg", "aiomysql", "asyncmy"):
        found = compare(shop.project(driver), cells, max(1, effort.rounds - 2))
        rows += [
            ratio("drivers", driver, name, found[name], MUST[name]) for name in cells
        ]
    return rows


def pooler(shop: Workshop, effort: Effort) -> list[Row]:
    """Behind PgBouncer in transaction mode, where no statement is prepared by name."""
    cells = {
        name: Cell(requests, seconds=effort.seconds / 2)
        for name, requests in WORKLOADS.items()
    }
    found = compare(shop.pooled(), cells, max(1, effort.rounds - 2))
    setting = "asyncpg, PgBouncer"
    return [ratio("pooler", setting, name, found[name], MUST[name]) for name in cells]


def clients(shop: Workshop, effort: Effort) -> list[Row]:
    """More clients than connections, and a fast statement."""
    cells = {
        f"{times}x of the pool": Cell(
            (KEPT,), times * POOL, seconds=effort.seconds, warm_up=effort.seconds / 2
        )
        for times in (1, 4, 10, 64)
    }
    found = compare(shop.project(), cells, max(1, effort.rounds - 2))
    setting = "asyncpg, kept statement"
    rows = [ratio("clients", setting, name, found[name], 2.0) for name in cells]
    ours = found["4x of the pool"]["ours"]
    spread, title = ours["p99"] / ours["p50"], "p99 at 4x of the pool"
    return [*rows, Row("clients", setting, title, spread, "x p50", at_most(1.6))]


def overload(shop: Workshop, effort: Effort) -> list[Row]:
    """Statements of 100 ms; a rude client comes back at once after each 503."""
    seconds = effort.seconds * 3
    cells = {
        f"{manner}, {number // POOL}x": Cell(
            (SLOW,), number, manner == "polite", seconds=seconds, warm_up=seconds
        )
        for manner in ("rude", "polite")
        for number in SLOW_CLIENTS
        if manner == "rude" or number > POOL
    }
    # Servers of its own for each: what waits in a queue would go on in the next cell.
    found = {
        name: compare(
            *(shop.project(), {name: cell}, max(1, effort.rounds - 3)),
            # Without a 503 there is nothing to heed.
            ("ours",) if cell.is_polite else ("ours", "articles"),
        )[name]
        for name, cell in cells.items()
    }
    peak = max(each["ours"]["rate"] for each in found.values())
    rows = []
    for name, cell in cells.items():
        least = GOODPUT.get(cell.clients) if not cell.is_polite else None
        of_peak = found[name]["ours"]["rate"] / peak
        target = at_least(least) if least else None
        row = ("overload", "asyncpg, 100 ms", name, of_peak, "of peak")
        rows.append(Row(*row, target, found[name]))
    return rows


def guards(shop: Workshop, effort: Effort) -> list[Row]:
    """CPU that the queue, the watchdog, validation and metrics add to a read."""
    rows = []
    for driver in ("asyncpg", "psycopg", "aiomysql", "asyncmy"):
        numbers = effort.numbers(5, 800)
        found = json.loads(shop.project(driver).measure("guards", *numbers))
        plain = found["plain pool"]
        added, ping = found["service"] - plain, found["plain pool, pre_ping"] - plain
        row = ("guards", driver, "all guards of a read", added, "us")
        rows.append(Row(*row, at_most(20)))
        rows.append(Row("guards", driver, "a pre-ping, for comparison", ping, "us"))
    return rows


Part = Callable[[Workshop, Effort], list[Row]]
