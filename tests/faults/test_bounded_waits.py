"""Each wait for a server that falls silent ends, and leaves no wrong connection."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import make_url

from tests.support.rendering import ROOT
from tests.support.servers import NETWORKED, Server
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1.5",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "3.5",
    # Those of a first connect, on a machine that may be busy.
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "4",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "5",
}
# Without its protection a wait passes the longest limit, which is short here.
SHORT = {
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "2",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "3",
    "NEVER_SECONDS": "6",
}
RIGHT: dict[str, Any] = {
    "statement": "unavailable",
    "commit": "outcome-unknown",
    # The error of the caller, and not that of the ROLLBACK.
    "rollback": "ZeroDivisionError()",
    "ping": "unavailable",
    "first_connect": ["unavailable", "well"],
    "close": "well",
    # The error of the driver; two connections were opened, and one row was written.
    "failed_rollback": ["RuntimeError('out of sync')", "well", "well", 2, 1],
    "retired_pool": ["moved"] * 3,
    "dead_network": ["well", "validation", "moved", "moved"],
}


@pytest.fixture
def run(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path: Path,
) -> Callable[..., Any]:
    def run(driver: str, *scenarios: str, **variables: str) -> Any:
        server, name = server_of(driver), f"db_{tmp_path.name.lower()}"
        server.empty(name)
        url = make_url(server.url).set(database=name)
        plain = {"DATABASE_URL": url.render_as_string(hide_password=False)}
        changes = VARIABLES | plain | variables
        program = str(PROGRAMS / "bounded_waits.py")
        done = service(driver).python(program, *scenarios, **changes)
        print(done.stderr)
        return done.stderr if done.returncode else json.loads(done.stdout)

    return run


@pytest.mark.parametrize("driver", NETWORKED)
def test_wait_for_a_silent_server_ends(run: Callable[..., Any], driver: str) -> None:
    assert run(driver, *RIGHT) == RIGHT


class Protection(NamedTuple):
    scenario: str
    file: str
    code: str
    without: str
    drivers: tuple[str, ...] = ("asyncpg", "asyncmy")


WATCHDOG, VALIDATION = "db/engine/watchdog.py", "db/engine/validation.py"
PROTECTIONS = {
    "limit of a statement": Protection(
        "statement",
        WATCHDOG,
        "self.watchdog.within(connection, seconds, execute, cursor, *args)",
        "execute(cursor, *args)",
        NETWORKED,
    ),
    "limit of a COMMIT": Protection(
        "commit",
        WATCHDOG,
        "self._end(super().do_commit, dbapi_connection, self.watchdog.seconds)",
        "super().do_commit(dbapi_connection)",
        NETWORKED,
    ),
    "limit of a ROLLBACK": Protection(
        "rollback",
        WATCHDOG,
        "self._end(super().do_rollback, dbapi_connection, RESET_SECONDS)",
        "super().do_rollback(dbapi_connection)",
        NETWORKED,
    ),
    "limit of a close": Protection(
        "close",
        WATCHDOG,
        "self.do_terminate(dbapi_connection)",
        "super().do_close(dbapi_connection)",
        ("asyncpg",),
    ),
    "end of the connection": Protection(
        "statement",
        WATCHDOG,
        "        self.shut_down(connection.driver_connection)\n",
        "",
    ),
    "end of a connection whose ROLLBACK has failed": Protection(
        "failed_rollback",
        VALIDATION,
        "if connection and (failed or connection in self._watchdog.not_reset):",
        "if False:",
        NETWORKED,
    ),
    "note of a ROLLBACK that has failed": Protection(
        "failed_rollback",
        WATCHDOG,
        'connection.info["reset_failed"] = True',
        "pass",
    ),
    "limit of a ping": Protection(
        "ping",
        VALIDATION,
        "self._watchdog.within(connection, seconds, connection.run_async, self._ping)",
        "connection.run_async(self._ping)",
        NETWORKED,
    ),
    "limit of the first queries": Protection(
        "first_connect",
        VALIDATION,
        "self._watchdog.arm(connection, remaining(self._watchdog.seconds))",
        "pass",
        ("aiomysql", "asyncmy"),
    ),
    "error of the first queries": Protection(
        "first_connect",
        WATCHDOG,
        "except (NotImplementedError, exc.ResourceClosedError, TypeError) as error:",
        "except ZeroDivisionError as error:",
        ("asyncpg",),
    ),
    "end of a pool that was retired": Protection(
        "retired_pool",
        VALIDATION,
        'if entry.info["opened_at"] <= self.retired_at:',
        "if False:",
    ),
    "end of the pool after a silent ping": Protection(
        "dead_network",
        VALIDATION,
        'self.retire("a connection gave no answer to the ping")',
        "pass",
    ),
}
CASES = [
    pytest.param(protection, driver, id=f"{name}, {driver}")
    for name, protection in PROTECTIONS.items()
    for driver in protection.drivers
]


@pytest.mark.parametrize(("protection", "driver"), CASES)
def test_scenario_can_fail(
    service: Callable[[str], Service],
    run: Callable[..., Any],
    tmp_path: Path,
    protection: Protection,
    driver: str,
) -> None:
    scenario, *change, _ = protection
    source = service(driver).changed(tmp_path / "src", *change)
    result = run(driver, scenario, PYTHONPATH=f"{source}:{ROOT}", **SHORT)

    assert result != {scenario: RIGHT[scenario]}
