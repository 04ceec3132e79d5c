"""Round trips of each use of the database: counted, not measured."""

import json
from collections.abc import Callable

import pytest

from tests.support.rendering import ROOT
from tests.support.service import Service

pytestmark = pytest.mark.boot

DRIVERS = ("asyncpg", "psycopg", "aiomysql", "asyncmy")
# BEGIN, the statement, COMMIT or ROLLBACK; a ping after a pause.
ROUND_TRIPS = {
    "read": 1,
    "two_reads": 2,
    "write": 3,
    "write_and_fail": 3,
    "unused": 0,
    "snapshot_of_two": 4,
    "snapshot_with_settings": 4,
    "write_with_settings": 4,
    "read after a pause": 2,
    # Repeated; an error.
    "lost": [1, True],
    "left": 0,
}
# The isolation level is a statement of its own, and there are no settings.
ON_MYSQL = {
    "snapshot_of_two": 5,
    "snapshot_with_settings": 0,
    "write_with_settings": 0,
}

# BEGIN, each statement, COMMIT.
OF_REQUESTS = {
    "create": 4,
    "get": 2,
    "list": 1,
    "lines": 1,
    "update": 5,
    "delete": 3,
    "live": 0,
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_use_takes_a_round_trip_too_many(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    one = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0"}
    variables = database(driver) | one
    done = service(driver).program(
        "round_trip_counts", PYTHONPATH=str(ROOT), **variables
    )

    assert done.returncode == 0, done.stderr
    others = {} if driver in ("asyncpg", "psycopg") else ON_MYSQL
    assert json.loads(done.stdout) == ROUND_TRIPS | others


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_request_of_the_example_takes_a_round_trip_too_many(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    one = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0"}
    variables = database(driver) | one
    done = service(driver).program(
        "request_round_trips", PYTHONPATH=str(ROOT), **variables
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == OF_REQUESTS
