"""A pool under a mixed load: no wrong row, no lost write, nothing left behind."""

import json
from collections.abc import Callable

import pytest

from tests.support.service import Service

pytestmark = pytest.mark.boot

DRIVERS = ("asyncpg", "psycopg", "aiomysql", "asyncmy")
# The second is the one that the service runs on; it does not tell its timers.
SECONDS = {"asyncio": 5, "uvloop": 2}
SEED = 20_261_122


@pytest.mark.parametrize("loop", SECONDS)
@pytest.mark.parametrize("driver", DRIVERS)
def test_mixed_load_tears_nothing_loses_nothing_and_leaves_nothing(
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
    assert report["slowest"] < 4
    assert report["left"] == {
        "idle": 5,
        "in use": 0,
        "waiting": 0,
        "timers": [],
        "tasks": 0,
    }
    # One that is ending may be counted beside its successor. With one too many there
    # are more than half of the time.
    assert report["server"]["above"] < 0.2, "more sessions than the pool"
    # All of the load has taken place.
    assert report["server"]["killed"] >= seconds
    kinds = ("read", "write", "fail", "cancelled")
    assert min(report["units"][kind] for kind in kinds) > 10
