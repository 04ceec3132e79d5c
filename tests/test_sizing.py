"""The sizing macro against worked examples and against its own promises."""

import json
from typing import Any

import pytest
from jinja2 import Environment, FileSystemLoader
from jinja2_ansible_filters import AnsibleCoreFiltersExtension

from tests.rendering import ROOT

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
