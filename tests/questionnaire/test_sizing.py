"""The sizing macro against worked examples and against its own promises."""

import math
from bisect import bisect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.combinations import questionnaire
from tests.support.rendering import ROOT, Answers

# Worked by hand: answers, and what they come to (usable, processes, pool_size, total).
EXAMPLES: dict[str, tuple[Answers, tuple[int, int, int, int]]] = {
    "the defaults": ({}, (81, 8, 10, 80)),
    # 357 - 10 - 1 = 346 of 397; 26 x 4 processes
    "a rollout adds 6 to 20 instances": (
        {
            "cloud": "aws_rds",
            "database_size": "db.t4g.medium",
            "max_instances": 20,
            "workers_per_instance": 4,
        },
        (346, 104, 3, 312),
    ),
    # 361 - 10 - 1 = 350 of 402
    "a rollout doubles them on Cloud Run": (
        {"runtime": "cloud_run", "max_connections": 405, "max_instances": 20},
        (350, 40, 8, 320),
    ),
    "a function needs one, and is stopped before its successor": (
        {"runtime": "lambda"},
        (81, 10, 1, 10),
    ),
    # 46 x 4 processes; 12 x 8 = 96 of Celery; (3117 - 96) / 184 = 16
    "with Celery": (
        {
            "max_connections": 3479,
            "runtime": "kubernetes",
            "max_instances": 40,
            "workers_per_instance": 4,
            "with_celery": True,
            "celery_instances": 6,
            "celery_concurrency": 8,
        },
        (3117, 184, 16, 3040),
    ),
    # (256 - 48) / 8 = 26; (26 - 1) / 2 = 12; 8 x (2 x 12 + 1) + 48 = 248
    "with Celery, and replicas: 3 for each of 4 x 4 tasks": (
        {
            "max_connections": 300,
            "with_replicas": True,
            "with_celery": True,
            "celery_concurrency": 4,
        },
        (256, 8, 12, 248),
    ),
    # 80 % of 57 = 45
    "a small server, shared": (
        {"cloud": "supabase", "database_size": "nano"},
        (39, 8, 4, 32),
    ),
    "MariaDB keeps none back": ({"driver": "asyncmy"}, (129, 8, 16, 128)),
    "never more than 20": (
        {"max_connections": 5000, "max_instances": 1, "workers_per_instance": 1},
        (4486, 2, 20, 40),
    ),
    "a pooler takes more than the server": (
        {"pooler": "transaction"},
        (81, 8, 20, 160),
    ),
}


@pytest.fixture(scope="module", name="answer")
def _answer(template: Path) -> Iterator[Callable[[Answers], Answers]]:
    with questionnaire(template, last="budget") as answer:
        yield answer


@pytest.mark.parametrize(
    ("answers", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys()
)
def test_worked_examples(
    answer: Callable[[Answers], Answers],
    answers: Answers,
    expected: tuple[int, int, int, int],
) -> None:
    budget = answer(answers)["budget"]

    keys = ("usable", "processes", "pool_size", "total")
    assert tuple(budget[key] for key in keys) == expected
    assert budget["max_overflow"] == 0
    assert not budget["refusal"]


def test_no_fleet_can_open_more_than_is_usable(
    answer: Callable[[Answers], Answers],
) -> None:
    """Every fleet is either refused or fits."""
    for max_connections in (1, 20, 50, 97, 100, 199, 200, 405, 1000, 5000):
        people = 5 if max_connections < 200 else 10
        usable = math.floor((max_connections - 3) * 90 / 100) - people - 1
        for instances in (1, 2, 3, 10, 40):
            for workers in (1, 2, 8):
                fleet = {
                    "max_connections": max_connections,
                    "max_instances": instances,
                    "workers_per_instance": workers,
                }
                if processes("container", instances, workers) > usable:
                    with pytest.raises(ValueError, match=f"only {max(usable, 0)} are"):
                        answer(fleet)
                    continue
                budget = answer(fleet)["budget"]
                assert budget["total"] <= budget["usable"] == usable
                assert budget["pool_size"] >= 1


CELERY = {"with_celery": True, "celery_instances": 2, "celery_concurrency": 3}


class Place(NamedTuple):
    """A server that can be ordered, and a way to it."""

    driver: str
    cloud: str
    size: str
    pooler: str
    runtime: str
    with_replicas: bool
    with_celery: bool
    row: Any

    @property
    def answers(self) -> Answers:
        asked: Answers = {"driver": self.driver, "cloud": self.cloud}
        asked |= {"runtime": self.runtime}
        asked |= {"database_size": self.size, "pooler": self.pooler}
        if self.runtime != "lambda":
            asked |= {"with_replicas": self.with_replicas}
        return asked | (CELERY if self.with_celery else {})

    @property
    def celery(self) -> int:
        """What tasks take: a session at a time for each process of a worker."""
        if not self.with_celery:
            return 0
        instances, each = CELERY["celery_instances"], CELERY["celery_concurrency"]
        tasks = processes(self.runtime, instances, each)
        return tasks * opened_by(1, with_replicas=self.with_replicas)


def places() -> Iterator[Place]:
    """Each size by each pooler; the rest in turn, since all share a formula."""
    text = (ROOT / "hooks" / "clouds.yml").read_text()
    for cloud, known in yaml.safe_load(text)["clouds"]["default"].items():
        for dialect, driver in {"postgresql": "asyncpg", "mysql": "asyncmy"}.items():
            if dialect not in known:
                continue
            row = known[dialect]
            runtimes = ["container", "kubernetes"]
            if cloud in {"self_hosted", "gcp_cloud_sql", "supabase", "neon"}:
                runtimes.append("cloud_run")
            if cloud not in {"gcp_cloud_sql", "azure"}:
                runtimes.append("lambda")
            number = 0
            for size in [*row["sizes"], "custom"]:
                for pooler in ["none", *row["poolers"]]:
                    if pooler != "none" and row["sizes"].get(size, {}).get(
                        "is_burstable"
                    ):
                        continue
                    runtime = runtimes[number % len(runtimes)]
                    replicas = runtime != "lambda" and number // len(runtimes) % 2 == 1
                    number += 1
                    runs = runtime in {"container", "kubernetes"}
                    most = row["sizes"].get(size, {}).get("max_connections", 100)
                    celery = runs and number % 3 > 0 and most > 99
                    also = (replicas, celery)
                    yield Place(driver, cloud, size, pooler, runtime, *also, row)


class Limits(NamedTuple):
    """Of connections; by the formula."""

    of_server: int
    usable: int  # for the service
    pooled: int  # those that a pooler opens for it; 0 without one
    shared: int  # among the processes


def limits(place: Place) -> Limits:
    size = place.row["sizes"].get(place.size, {})
    custom = {"asyncpg": 100, "asyncmy": 151}[place.driver]
    most = size.get("max_connections", custom)
    free = most - place.row["reserved"] - place.row["agents"]
    people = 5 if most < 200 else 10
    usable = math.floor(free * place.row.get("safety", 90) / 100) - people - 1
    if place.pooler not in {"transaction", "rds_proxy"}:
        return Limits(most, usable, 0, usable)
    product = place.row["poolers"][place.pooler]
    is_own = "own" in product
    # One server may be behind both databases: that of the primary, that of a replica.
    share = usable // 2 if is_own and place.with_replicas else usable
    opened = min(share, product.get("connections", 50 if is_own else usable))
    if "percent" in product:  # by itself: a migration beside it must have room
        opened = math.floor(most * product["percent"] / 100)
        usable = free - 1
    clients = size.get("clients", product.get("clients", 10_000))
    return Limits(most, usable, opened, clients)


def opened_by(pool: int, *, with_replicas: bool) -> int:
    """What one process opens on a server that is the primary and its replica."""
    return pool + pool + 1 if with_replicas else pool


def processes(runtime: str, instances: int, workers: int) -> int:
    """At the worst moment of a rollout: 1 more at a time, of which 45 s / 10 s end."""
    if runtime == "lambda":
        return instances
    if runtime == "cloud_run":
        return 2 * instances
    return min(2 * instances, instances + 1 + math.ceil(45 / 10) * 1) * workers


def test_every_size_is_shared_by_as_many_as_fit_and_not_by_one_more(
    answer: Callable[[Answers], Answers],
) -> None:
    """At the largest fleet, at one instance more, and at a small one."""
    seen = set()
    for place in places():
        has_workers = place.runtime in {"container", "kubernetes"}
        workers = 3 if has_workers else 1
        of_server, usable, opened, all_shared = limits(place)
        shared = all_shared - place.celery
        # More instances never open fewer connections.
        largest = bisect(
            range(1, 10_001),
            shared,
            key=lambda number: (
                processes(place.runtime, number, workers)
                * opened_by(1, with_replicas=place.with_replicas)
            ),
        )
        assert largest, f"{place} serves nobody"
        for instances in {1, min(4, largest), largest}:
            fleet: Answers = {"max_instances": instances}
            if has_workers:
                fleet["workers_per_instance"] = workers
            budget = answer(place.answers | fleet)["budget"]
            pool = budget["pool_size"]
            number = processes(place.runtime, instances, workers)
            total, one_more = (
                number * opened_by(size, with_replicas=place.with_replicas)
                for size in (pool, pool + 1)
            )

            assert total + place.celery == budget["total"]
            assert total <= shared, f"{place} of {fleet}"
            most = 1 if place.runtime == "lambda" else 20
            assert pool == most or one_more > shared, "there is room for more"
            assert 1 <= pool <= most
            if opened:
                assert budget["pooled"] == opened <= usable
                # MaxConnectionsPercent of RDS Proxy.
                assert budget["percent"] * of_server / 100 <= opened
        if largest < 10_000:
            fleet = {"max_instances": largest + 1}
            if has_workers:
                fleet["workers_per_instance"] = workers
            with pytest.raises(ValueError, match=r"use (a pooler, )?fewer "):
                answer(place.answers | fleet)
        seen.add((place.cloud, place.pooler, place.runtime, *place[5:7]))

    assert len(seen) > 70, "the tables have grown, or were not read"
