"""A pool under a mixed load: no wrong row, no lost write, no leak."""

import json
from collections.abc import Callable

import pytest

from tests.support.service import Service

pytestmark = pytest.mark.boot

DRIVERS = ("asyncpg", "psycopg", "aiomysql", "asyncmy")
# The service runs on uvloop, which does not list its timers.
SECONDS = {"asyncio": 5, "uvloop": 2}
SEED = 20_261_122


@pytest.mark.parametrize("loop", SECONDS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_mixed_load_loses_no_write_and_leaks_nothing(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
    loop: str,
) -> None:
    """16 workers on 5 connections, a fifth cancelled, 2 sessions killed at a time."""
    seconds = SECONDS[loop]
    arguments = (loop, str(seconds), str(SEED))
    done = service(driver).program("pool_under_load", *arguments, **database(driver))

    assert done.returncode == 0, done.stderr
    print(done.stdout)
    report = json.loads(done.stdout)
    assert set(report["wrong"].values()) == {0}, report["wrong"]
    assert report["faults"].keys() <= {"unavailable", "outcome-unknown"}
    assert report["slowest"] < 8
    assert report["left"] == {
        "idle": 5,
        "in use": 0,
        "free": 5,
        "waiting": 0,
        "timers": [],
        "tasks": 0,
    }
    # A session that ends may be counted beside its successor. A pool that opened one
    # connection too many would be above its size more than half of the time.
    assert report["server"]["above"] < 0.5, "more sessions than the pool"
    # All of the load has taken place.
    assert report["server"]["killed"] >= seconds
    kinds = ("read", "write", "fail", "cancelled")
    assert min(report["units"][kind] for kind in kinds) > 10
