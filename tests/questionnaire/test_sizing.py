"""The sizing macro against worked examples and against its own promises."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jinja2 import Environment, FileSystemLoader
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

from tests.support.combinations import questionnaire
from tests.support.rendering import ROOT, Answers

MACROS = Environment(  # noqa: S701
    loader=FileSystemLoader(ROOT),
    extensions=[AnsibleCoreFiltersExtension],
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("hooks/sizing.jinja")


def server(**answers: Any) -> dict[str, Any]:
    sizes: dict[str, Any] = json.loads(MACROS.module.server_sizes(**answers))  # type: ignore[attr-defined]
    return sizes


def rollout(surge: int, unavailable: int) -> dict[str, int]:
    return {
        "surge": surge,
        "unavailable": unavailable,
        "termination_s": 30,
        "ready_s": 10,
    }


# Worked by hand: a server of the given max_connections (PostgreSQL unless it says
# otherwise), and what one process gets.
EXAMPLES = {
    "a rollout doubles 20 instances": (
        {
            "max_connections": 405,
            "agents": 2,
            "instances": 20,
            "workers": 1,
            "rollout": rollout(5, 5),
        },
        (349, 40, 8, 8, 0, 320),
    ),
    "4 workers each": (
        {
            "max_connections": 405,
            "agents": 2,
            "instances": 20,
            "workers": 4,
            "rollout": rollout(5, 5),
        },
        (349, 160, 2, 2, 0, 320),
    ),
    "one instance more at a time": (
        {
            "max_connections": 405,
            "agents": 2,
            "instances": 20,
            "workers": 4,
            "rollout": rollout(1, 0),
        },
        (349, 96, 3, 3, 0, 288),
    ),
    "with Celery": (
        {
            "max_connections": 3479,
            "agents": 2,
            "instances": 40,
            "workers": 4,
            "celery_instances": 6,
            "celery_concurrency": 8,
            "rollout": rollout(10, 10),
        },
        (3115, 320, 9, 9, 0, 2976),
    ),
    "with Celery, and replicas: 3 for each of 4 x 4 tasks": (
        {
            "max_connections": 300,
            "instances": 2,
            "workers": 2,
            "celery_instances": 2,
            "celery_concurrency": 4,
            "celery_per_child": 3,
            "pools": 2,
        },
        # (256 - 48) / 8 = 26; (26 - 1) / 2 = 12; 8 x (2 x 12 + 1) + 48 = 248
        (256, 8, 12, 12, 0, 248),
    ),
    "by demand": (
        {
            "max_connections": 3479,
            "agents": 2,
            "instances": 20,
            "workers": 4,
            "requests_per_second": 1200,
            "hold_s": 0.02,
            "rollout": rollout(5, 5),
        },
        (3115, 160, 19, 3, 2, 800),
    ),
    "a small server, shared": (
        {
            "max_connections": 60,
            "safety": 80,
            "admin": 3,
            "instances": 2,
            "workers": 2,
            "rollout": rollout(1, 0),
        },
        (41, 8, 5, 5, 0, 40),
    ),
    "the defaults": (
        {"max_connections": 100, "instances": 2, "workers": 2},
        (81, 8, 10, 10, 0, 80),
    ),
    "MariaDB keeps none back": (
        {"max_connections": 151, "reserved": 0, "instances": 2, "workers": 2},
        (129, 8, 16, 16, 0, 128),
    ),
    "never more than 20": (
        {"max_connections": 5000, "instances": 1, "workers": 1},
        (4486, 2, 20, 20, 0, 40),
    ),
}


@pytest.mark.parametrize(
    ("answers", "expected"), EXAMPLES.values(), ids=EXAMPLES.keys()
)
def test_worked_examples(
    answers: dict[str, Any], expected: tuple[int, int, int, int, int, int]
) -> None:
    sizes = server(**{"reserved": 3} | answers)

    keys = ("usable", "processes", "cap", "pool_size", "max_overflow", "total")
    assert tuple(sizes[key] for key in keys) == expected
    assert not sizes["refusal"]


def test_no_fleet_can_open_more_than_is_usable() -> None:
    """Every fleet is either refused or fits, and one connection less would not do."""
    for max_connections in (1, 20, 50, 97, 100, 199, 200, 405, 1000, 5000):
        for instances in (1, 2, 3, 10, 40):
            for workers in (1, 2, 8):
                sizes = server(
                    max_connections=max_connections,
                    instances=instances,
                    workers=workers,
                    reserved=3,
                )
                fits = sizes["processes"] <= sizes["usable"]
                assert bool(sizes["refusal"]) is not fits
                if fits:
                    assert sizes["total"] <= sizes["usable"]
                    assert sizes["pool_size"] >= 1
                    assert sizes["max_overflow"] >= 0


@pytest.mark.parametrize(
    ("load", "connections"), [(10, 19), (4, 10), (0.15, 3), (0.001, 1)]
)
def test_erlang_c_finds_the_least_that_leaves_one_in_a_hundred_waiting(
    load: float, connections: int
) -> None:
    assert int(MACROS.module.erlang_c(load)) == connections  # type: ignore[attr-defined]


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
    for cloud, dialects in yaml.safe_load(text)["clouds"]["default"].items():
        for dialect, row in dialects.items():
            if dialect == "sqlite":
                continue
            driver = {"postgresql": "asyncpg", "mysql": "asyncmy"}[dialect]
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
    opened = min(usable, product.get("connections", 50 if "own" in product else usable))
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
    template: Path,
) -> None:
    """At the largest fleet, at one instance more, and at a small one."""
    seen = set()
    with questionnaire(template) as answer:
        for place in places():
            has_workers = place.runtime in {"container", "kubernetes"}
            workers = 3 if has_workers else 1
            of_server, usable, opened, all_shared = limits(place)
            shared = all_shared - place.celery
            fitting = [
                n
                for n in range(1, 10_001)
                if processes(place.runtime, n, workers)
                * opened_by(1, with_replicas=place.with_replicas)
                <= shared
            ]
            assert fitting, f"{place} serves nobody"
            largest = max(fitting)
            for instances in {1, min(4, largest), largest}:
                fleet: Answers = {"max_instances": instances}
                if has_workers:
                    fleet["workers_per_instance"] = workers
                budget = answer(place.answers | fleet)["budget"]
                pool = budget["pool_size"] + budget["max_overflow"]
                number = processes(place.runtime, instances, workers)
                total, one_more = (
                    number * opened_by(size, with_replicas=place.with_replicas)
                    for size in (pool, pool + 1)
                )

                assert total + place.celery == budget["total"]
                assert total <= shared, f"{place} of {fleet}"
                most = 1 if place.runtime == "lambda" else 20
                assert pool == most or one_more > shared, "there is room for more"
                assert pool <= most
                assert budget["max_overflow"] >= 0 < budget["pool_size"]
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
