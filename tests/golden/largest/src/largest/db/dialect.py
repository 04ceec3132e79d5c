"""What PostgreSQL is told and says: transactions, error codes, migrations."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DIALECT = "postgresql"
SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432
# Seconds a server waits before it looks for a deadlock (deadlock_timeout): a lower
# limit would end the wait first, and a deadlock would never be called one.
LOWEST_LIMIT_SECONDS = 1

# Who tells apart what is asked there, and when; how many of these there can be, with
# the name of the limit: it leaves them to a role that is no administrator.
SESSION = "SELECT pg_backend_pid()"
CLOCK = "SELECT extract(epoch FROM clock_timestamp())"
CONNECTION_LIMIT = """
SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END) AS most,
    'max_connections' AS whose FROM pg_settings
    WHERE name = 'max_connections' OR name LIKE '%%reserved_connections'
UNION SELECT rolconnlimit, 'the role''s CONNECTION LIMIT' FROM pg_roles
    WHERE rolname = current_user AND rolconnlimit >= 0
UNION SELECT datconnlimit, 'the database''s CONNECTION LIMIT' FROM pg_database
    WHERE datname = current_database() AND datconnlimit >= 0
ORDER BY most LIMIT 1
"""

READ_ONLY = "25006"

# SQLSTATE, or the first characters of it, and what it means for the caller.
FAULTS = {
    "08": "unavailable",  # connection failed
    "23": "conflict",  # unique, foreign key, not null, check, exclusion
    READ_ONLY: "unavailable",
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "28": "unavailable",  # login refused
    "3D000": "unavailable",  # no such database
    "40": "busy",  # deadlock or serialization failure, rolled back
    "53": "busy",  # too many connections, out of memory or disk
    "55P03": "busy",  # lock not available
    "57014": "timeout",  # statement_timeout
    "57P": "unavailable",  # the server is stopping or starting
}

# An index may take an hour to build; a lock must not, because everybody who comes
# after a waiting ALTER TABLE waits with it.
MIGRATION_LIMITS = (
    "SELECT set_config('lock_timeout', '5s', false),"
    " set_config('statement_timeout', '1h', false),"
    " set_config('idle_in_transaction_session_timeout', '1h', false)"
)


def fault(error: DBAPIError) -> str | None:
    """Name the fault by its SQLSTATE; the class differs from driver to driver."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return next((FAULTS[code] for code in FAULTS if sqlstate.startswith(code)), None)


def is_read_only(error: BaseException) -> bool:
    """Whether the server refuses to write: the primary is another one now."""
    return getattr(error, "sqlstate", None) == READ_ONLY


def message(error: BaseException) -> str:
    """What the server says: it quotes the data in the lines after the first."""
    return str(error)


def transactional(engine: AsyncEngine) -> AsyncEngine:
    """The same pool, with a transaction around what is executed."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def snapshot(engine: AsyncEngine) -> AsyncEngine:
    """For an export: a cursor lives in a transaction only."""
    return engine.execution_options(
        isolation_level="READ COMMITTED", postgresql_readonly=True
    )


async def allow_to_last(connection: AsyncConnection, seconds: float) -> None:
    """Lift the limits of this transaction, for a reader who takes a break."""
    milliseconds = round(seconds * 1000)
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        await connection.exec_driver_sql(f"SET LOCAL {limit} = {milliseconds}")


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the lock of this database that says "I migrate", if it is free.

    It ends with the connection, and so with a migration that is killed.
    """
    query = "SELECT pg_try_advisory_lock(hashtext('alembic'))"
    return nullcontext() if connection.exec_driver_sql(query).scalar() else None
