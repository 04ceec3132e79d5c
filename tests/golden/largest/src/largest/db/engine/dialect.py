"""PostgreSQL: transactions, error codes, queries about the server, migrations."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# The session of the server, its time, whether it is the primary; the lowest limit of
# connections for this role, which is no superuser, with the name of that limit.
SESSION_ID_QUERY = "SELECT pg_backend_pid()"
SERVER_TIME_QUERY = "SELECT extract(epoch FROM clock_timestamp())"
PRIMARY_QUERY = "SELECT NOT pg_is_in_recovery()"
CONNECTION_LIMIT_QUERY = """
SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END) AS most,
    'max_connections' AS name FROM pg_settings
    WHERE name = 'max_connections' OR name LIKE '%%reserved_connections'
UNION SELECT rolconnlimit, 'the role''s CONNECTION LIMIT' FROM pg_roles
    WHERE rolname = current_user AND rolconnlimit >= 0
UNION SELECT datconnlimit, 'the database''s CONNECTION LIMIT' FROM pg_database
    WHERE datname = current_database() AND datconnlimit >= 0
ORDER BY most LIMIT 1
"""

READ_ONLY_SQLSTATE = "25006"

# SQLSTATE, or its first characters, and the kind of fault: see FaultKind.
FAULTS = {
    "08": "unavailable",  # connection failed
    "23": "conflict",  # unique, foreign key, not null, check, exclusion
    READ_ONLY_SQLSTATE: "unavailable",
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "28": "unavailable",  # login refused
    "3D000": "unavailable",  # no such database
    "40": "busy",  # deadlock or serialization failure, rolled back
    "53": "busy",  # too many connections, out of memory or disk
    "55P03": "busy",  # lock not available
    "57014": "timeout",  # statement_timeout
    "57P": "unavailable",  # the server is stopping or starting
}

# An index may take an hour to build. A lock may not: every statement behind a waiting
# ALTER TABLE waits too.
MIGRATION_LIMITS = (
    "SELECT set_config('lock_timeout', '5s', false),"
    " set_config('statement_timeout', '1h', false),"
    " set_config('idle_in_transaction_session_timeout', '1h', false)"
)


def classify_code(error: DBAPIError) -> str | None:
    """The kind of fault by SQLSTATE; the class of an error depends on the driver."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return next((FAULTS[code] for code in FAULTS if sqlstate.startswith(code)), None)


def is_read_only(error: BaseException) -> bool:
    """Whether the server rejects a write, as a standby does."""
    return getattr(error, "sqlstate", None) == READ_ONLY_SQLSTATE


def safe_text(error: BaseException) -> str:
    """The message of the server; data are quoted only behind its first line."""
    return str(error)


def with_transactions(engine: AsyncEngine) -> AsyncEngine:
    """The same pool; a connection begins a transaction."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def for_export(engine: AsyncEngine) -> AsyncEngine:
    """For an export: a cursor of the server needs a transaction."""
    return engine.execution_options(
        isolation_level="READ COMMITTED", postgresql_readonly=True
    )


async def extend_timeouts(connection: AsyncConnection, seconds: float) -> None:
    """Raise the timeouts of this transaction: a slow reader delays the next fetch."""
    milliseconds = round(seconds * 1000)
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        await connection.exec_driver_sql(f"SET LOCAL {limit} = {milliseconds}")


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the migration lock of this database; None while it is taken.

    The server releases it with the connection, so also when a migration is killed.
    """
    query = "SELECT pg_try_advisory_lock(hashtext('alembic'))"
    return nullcontext() if connection.exec_driver_sql(query).scalar() else None
