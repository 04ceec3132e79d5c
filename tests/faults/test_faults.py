"""The answer over HTTP to each fault of a database, driver by driver."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.rendering import ROOT
from tests.support.servers import DRIVERS, DRIVERS_ON
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

CONFLICT = "409 conflict"
BUSY = "503 busy again after 1 s"
TIMEOUT = "503 timeout again after 1 s"
UNAVAILABLE = "503 unavailable again after 1 s"
UNKNOWN = "504 outcome-unknown"
OWN = "402 about:blank"

# "Server has gone away", or "lost connection during query".
MYSQL_LOST = "20(06|13)"

# Far enough apart to distinguish one from the next.
LIMITS = {
    "DATABASE_LOCK_TIMEOUT_SECONDS": "2",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "4",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "6",
    # The check would be one connection more.
    "DATABASE_BUDGET_CHECK": "off",
}
# What the program writes in parameters and passwords.
CANARY = "canary"


class Row(NamedTuple):
    """The answers, and what the log says of the cause; None where there is no such."""

    answers: list[Any]
    postgresql: str | None = None
    mysql: str | None = None
    sqlite: str | None = None


# False: no row is left of what was written before the fault.
ROWS = {
    "unique": Row(
        [CONFLICT, False],
        "unique",
        r"1062, duplicate entry for '(things\.)?uq_",
        "UNIQUE",
    ),
    "foreign key": Row([CONFLICT, False], "insert .* foreign key", "1452", "FOREIGN"),
    "foreign key of others": Row(
        [CONFLICT, False], "delete .* foreign key", "1451", "FOREIGN"
    ),
    "not null": Row([CONFLICT, False], "not-null", "1048", "NOT NULL"),
    "check": Row([CONFLICT, False], "check constraint", "4025", "CHECK"),
    "deferred": Row([CONFLICT, False], "foreign key", None, "FOREIGN"),
    "statement timeout": Row(
        [TIMEOUT, TIMEOUT], "statement timeout", "max_statement_time"
    ),
    # Once: a read that was cut is not repeated.
    "statement timer": Row(["200", UNAVAILABLE, 1], *["no answer within 6.0 s"] * 2),
    "slow write": Row([TIMEOUT], "statement timeout", "max_statement_time"),
    "nowait": Row([BUSY], "could not obtain lock", "1205"),
    "lock timeout": Row([BUSY], "lock timeout", "1205", "database is locked"),
    "deadlock": Row(["200", BUSY], "deadlock detected", "1213"),
    "serialization": Row(["200", BUSY], "could not serialize", "1020"),
    "read only": Row(
        ["200", UNAVAILABLE], "read-only transaction", "1792", "readonly database"
    ),
    "pool full": Row([BUSY, "200"], *["no connection within 3 s: 1 in use"] * 3),
    "refused connect": Row([UNAVAILABLE] * 2, "refused", "2003"),
    "silent connect": Row([UNAVAILABLE] * 2, *["no answer in 2.0 s"] * 2),
    "unknown host": Row([UNAVAILABLE] * 2, r"Errno -\d", "2003"),
    "wrong password": Row([UNAVAILABLE] * 2, "password authentication failed", "1045"),
    "closed account": Row([UNAVAILABLE] * 2, None, "3118|4151"),
    "wrong name": Row([UNAVAILABLE] * 2, '"nowhere" does not exist', "1049"),
    "wrong path": Row([UNAVAILABLE] * 2, sqlite="unable to open"),
    "too many connections": Row(["200", BUSY], "too many connections", "1226"),
    # A read is repeated, a write is not; the next one has a new connection.
    "killed a moment ago": Row(
        ["200", "200", UNAVAILABLE, "200"], "closed|terminating", MYSQL_LOST
    ),
    # MySQL says why it has closed the connection, to the next statement.
    "closed for being idle": Row(
        ["200", "200", UNAVAILABLE, "200"], None, f"{MYSQL_LOST}|4031"
    ),
    # Pinged before its use, and replaced.
    "killed while idle": Row(["200", "200"], "", ""),
    "killed every time": Row([UNAVAILABLE, 2], "closed|terminating", MYSQL_LOST),
    "killed between two queries": Row([200, True], "", ""),
    "killed within a statement": Row([UNAVAILABLE], "terminating", MYSQL_LOST),
    # COMMIT is not sent, so nothing was changed.
    "killed before COMMIT": Row(
        [UNAVAILABLE, False, UNAVAILABLE], "closed|terminating", MYSQL_LOST
    ),
    "idle for too long": Row(
        [UNAVAILABLE, UNAVAILABLE, False], "closed|terminating", MYSQL_LOST
    ),
    "reset before COMMIT": Row(
        [UNAVAILABLE, UNAVAILABLE, False, 0], "closed|terminating", MYSQL_LOST
    ),
    "reset while idle": Row(
        ["200", "200", UNAVAILABLE, "200"], "closed|terminating", MYSQL_LOST
    ),
    # True: it was committed, although the answer was lost.
    "lost after COMMIT": Row([UNKNOWN, True], "closed", MYSQL_LOST),
    "silent COMMIT": Row([UNKNOWN], *["no answer within 6.0 s"] * 2),
    "own error": Row([OWN, OWN], *["ROLLBACK failed"] * 2),
    "changed type": Row(
        ["200", "200", "200", UNAVAILABLE, "200", "200"], "cache lookup failed"
    ),
    "changed table": Row(
        ["200", "200", UNAVAILABLE, "200"], "cached (statement )?plan"
    ),
}
# What MySQL itself says, where MariaDB says something else; None: it does not happen.
CAUSES_OF_MYSQL = {
    "check": "3819",
    "statement timeout": "3024",
    # It limits SELECT only: another statement goes on until the watchdog ends it.
    "slow write": "no answer within 6.0 s",
    "nowait": "3572",
    "serialization": None,
    "idle for too long": None,
}
ANSWERS_OF_MYSQL = {"slow write": [UNAVAILABLE]}
# libpq has no SQLSTATE when it cannot connect, and has it when a session was ended.
PSYCOPG: dict[str, list[Any]] = {
    "too many connections": ["200", UNAVAILABLE],
    "idle for too long": [TIMEOUT, TIMEOUT, False],
}


def loud_lines(text: str) -> list[Any]:
    log = [json.loads(line) for line in text.splitlines()]
    return [line for line in log if line["level"] not in ("INFO", "WARNING")]


@pytest.mark.parametrize(("driver", "server"), [*DRIVERS_ON, ("aiosqlite", "")])
def test_every_fault_is_answered_with_its_class(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    dialect = DRIVERS[driver]["dialect"]
    causes = {name: getattr(row, dialect) for name, row in ROWS.items()}
    if server == "mysql":
        causes |= CAUSES_OF_MYSQL
    causes = {name: cause for name, cause in causes.items() if cause is not None}
    expected = {name: ROWS[name].answers for name in causes}
    if driver == "psycopg":
        expected |= PSYCOPG
    if server == "mysql":
        expected |= ANSWERS_OF_MYSQL

    variables = database(driver, server) | LIMITS
    variables["PYTHONPATH"] = f"{ROOT}:{PROGRAMS}"
    names = expected if server == "mysql" else ()
    done = service(driver).program("faults/provoke", *names, **variables)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report["seconds"])
    assert report["answers"] == expected
    log = [json.loads(line) for line in done.stderr.splitlines()]
    for name, cause in causes.items():
        request = name.replace(" ", "_")
        lines = [line for line in log if line.get("request_id") == request]
        assert re.search(cause, "\n".join(line["message"] for line in lines)), name
    assert loud_lines(done.stderr) == []
    # Nor is one in a traceback, which is a field of a line.
    assert CANARY not in done.stderr, "no value of a parameter belongs there"
    assert CANARY not in json.dumps(report["bodies"])
    assert len(report["shown"]) == 6
    assert "database_pool_size" in report["shown"][0]
    assert CANARY not in json.dumps(report["shown"])


class Protection(NamedTuple):
    row: str  # whose answers it is for
    file: str
    code: str
    without: str
    drivers: tuple[str, ...] = ("asyncpg", "asyncmy")
    server: str = ""


# What all drivers share is taken out of one of PostgreSQL's and one of MySQL's.
PROTECTIONS = (
    Protection("unique", "db/engine/dialect.py", "1062", "1", ("asyncmy",)),
    Protection("check", "db/engine/dialect.py", "3819", "1", ("asyncmy",), "mysql"),
    Protection("nowait", "db/engine/dialect.py", "3572", "1", ("aiomysql",), "mysql"),
    Protection(
        "closed account", "db/engine/dialect.py", "1862", "1", ("asyncmy",), "mysql"
    ),
    Protection(
        "deadlock", "db/engine/dialect.py", '"40": "busy"', '"4": ""', ("psycopg",)
    ),
    Protection(
        "pool full",
        "db/errors.py",
        "isinstance(error, PoolTimeoutError)",
        "False",
        ("aiosqlite",),
    ),
    Protection(
        "refused connect",
        "db/engine/validation.py",
        "except OSError as error",
        "except KeyError as error",
        ("asyncpg",),
    ),
    Protection(
        "killed a moment ago",
        "db/primary.py",
        "if not lost or rejects_write(error)",
        "if True or rejects_write(error)",
    ),
    Protection(
        "killed while idle",
        "db/engine/validation.py",
        "self._watchdog.within(connection, seconds, connection.run_async, self._ping)",
        "pass",
    ),
    Protection(
        "killed before COMMIT",
        "db/engine/watchdog.py",
        "if self.watchdog.is_closed(dbapi_connection):",
        "if False:",
        ("asyncpg", "aiomysql"),  # asyncmy knows by itself
    ),
    Protection(
        "killed before COMMIT",
        "db/orm/commits.py",
        "if is_rolled_back(error):",
        "if False:",
        ("psycopg",),
    ),
    Protection(
        "idle for too long",
        "db/engine/network.py",
        'connection.cursor().execute("SELECT 1")',
        "pass",
        ("psycopg",),
    ),
    Protection(
        "lost after COMMIT",
        "db/orm/commits.py",
        "if not context.is_disconnect or",
        "if True or",
    ),
    Protection(
        "reset while idle",
        "db/engine/driver.py",
        "except RuntimeError as error:  # of uvloop",
        "except KeyError as error:  # of uvloop",
        ("aiomysql",),
    ),
    Protection(
        "changed type",
        "db/engine/driver.py",
        '"cache lookup failed" in',
        '"nothing of the kind" in',
        ("asyncpg", "psycopg"),
    ),
    Protection(
        "statement timer",
        "db/primary.py",
        "or seconds >= RETRY_WITHIN_SECONDS",
        "",
    ),
    Protection(
        "own error",
        "db/orm/writes.py",
        "except (DBAPIError, InvalidRequestError) as error:\n        cause",
        "except KeyError as error:\n        cause",
    ),
    Protection(
        "changed table",
        "db/engine/driver.py",
        'event.listen(engine, "handle_error", _drop_stale)',
        "pass",
        ("asyncpg", "psycopg"),
    ),
)
CASES = [
    pytest.param(protection, driver, id=f"{protection.row}, {driver}, {number}")
    for number, protection in enumerate(PROTECTIONS)
    for driver in protection.drivers
]


@pytest.mark.parametrize(("protection", "driver"), CASES)
def test_fault_is_answered_otherwise_without_its_protection(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    tmp_path: Path,
    protection: Protection,
    driver: str,
) -> None:
    shop = service(driver)
    source = shop.changed(
        tmp_path / "src", protection.file, protection.code, protection.without
    )
    path = f"{source}:{ROOT}:{PROGRAMS}"
    variables = database(driver, protection.server) | LIMITS | {"PYTHONPATH": path}
    provoke = str(PROGRAMS / "faults" / "provoke.py")
    done = shop.python(provoke, protection.row, **variables)

    assert done.returncode == 0, done.stderr
    (answers,) = json.loads(done.stdout)["answers"].values()
    expected = {protection.row: ROWS[protection.row].answers}
    if driver == "psycopg":
        expected |= PSYCOPG
    assert answers != expected[protection.row] or loud_lines(done.stderr)
