"""SQLite: transactions, error codes, migrations."""

import fcntl
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# SQLite's error code, or its first characters, and the kind of fault: see FaultKind.
FAULTS = {
    "SQLITE_BUSY": "busy",  # another process holds the write lock
    "SQLITE_CANTOPEN": "unavailable",
    "SQLITE_CONSTRAINT": "conflict",
    "SQLITE_FULL": "unavailable",
    "SQLITE_IOERR": "unavailable",
    "SQLITE_LOCKED": "busy",
    "SQLITE_READONLY": "unavailable",
}

# A migration may wait for a writer of the service.
MIGRATION_LIMITS = "PRAGMA busy_timeout=60000"


def classify_code(error: DBAPIError) -> str | None:
    """The kind of fault by SQLite's error code."""
    name = getattr(error.orig, "sqlite_errorname", "")
    return next((FAULTS[code] for code in FAULTS if name.startswith(code)), None)


def safe_text(error: BaseException) -> str:
    """The message of SQLite, which quotes no data."""
    return str(error)


def with_transactions(engine: AsyncEngine) -> AsyncEngine:
    """The same pool; a connection begins a transaction."""
    writes = engine.execution_options()
    event.listen(writes.sync_engine, "begin", _begin)
    return writes


def for_export(engine: AsyncEngine) -> AsyncEngine:
    """For an export: one SELECT sees the file as it was when it began."""
    return engine


async def extend_timeouts(connection: AsyncConnection, seconds: float) -> None:
    """SQLite has no timeouts to raise."""


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the migration lock of this file; None while it is taken.

    The system releases it with the process, so also when a migration is killed.
    """
    file = open(f"{connection.engine.url.database}.migrate", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return  # within a migration's autocommit_block()
    # A plain BEGIN takes the write lock at the first write, too late to wait for
    # it: SQLITE_BUSY at once, whatever the timeout says.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
