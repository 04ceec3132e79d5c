"""SQLite: transactions and error codes."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

# SQLite's error code, or its first characters, and the kind of fault: see FaultKind.
FAULTS = {
    "SQLITE_BUSY": "busy",  # another process holds the write lock
    "SQLITE_CANTOPEN": "unavailable",
    "SQLITE_CONSTRAINT_DATATYPE": "invalid-value",
    "SQLITE_CONSTRAINT": "conflict",
    "SQLITE_FULL": "unavailable",
    "SQLITE_IOERR": "unavailable",
    "SQLITE_LOCKED": "busy",
    "SQLITE_MISMATCH": "invalid-value",
    "SQLITE_READONLY": "unavailable",
    "SQLITE_SCHEMA": "busy",  # changed since the statement was prepared
    "SQLITE_TOOBIG": "invalid-value",
}

# What SQLite says of a value without a code of its own.
VALUE_ERRORS = (
    "too many SQL variables",  # of one statement
    "integer overflow",
    "malformed JSON",
    "pattern too complex",  # of LIKE or GLOB
    "bad JSON path",
    "JSON path error",  # of an older SQLite
    # Of a full text search, FTS5 and FTS4.
    "fts5:",
    "unterminated string",
    "unknown special query",
    "malformed MATCH expression",
)
# Also of a search, as for "name:tea"; else the statement has the name: a bug.
NO_COLUMN = "no such column: "
# REGEXP is a function of SQLAlchemy in Python: an invalid pattern.
PATTERN_ERROR = "user-defined function raised exception"


def classify_code(error: DBAPIError) -> str | None:
    """The kind of fault by SQLite's error code."""
    text = str(error.orig)
    is_pattern = PATTERN_ERROR in text and "REGEXP" in (error.statement or "")
    _, is_column, column = text.partition(NO_COLUMN)
    is_search = is_column and column not in (error.statement or "")
    if is_pattern or is_search or any(each in text for each in VALUE_ERRORS):
        return "invalid-value"
    name = getattr(error.orig, "sqlite_errorname", "")
    return next((FAULTS[code] for code in FAULTS if name.startswith(code)), None)


def rejects_write(error: BaseException) -> bool:
    """Whether the file cannot be written to."""
    orig = getattr(error, "orig", None) or error
    return getattr(orig, "sqlite_errorname", "").startswith("SQLITE_READONLY")


def is_rolled_back(_: DBAPIError) -> bool:
    """Whether COMMIT had no effect: SQLite has answered each."""
    return True


def safe_text(error: BaseException) -> str:
    """The message of SQLite without data, which a trigger or a parser quotes."""
    name = getattr(error, "sqlite_errorname", "")
    text = str(error)
    for each in (*VALUE_ERRORS, NO_COLUMN):
        if each in text:
            return f"{name} {each}"
    return name if name == "SQLITE_CONSTRAINT_TRIGGER" else text


def with_transactions(engine: AsyncEngine, begin_by: Any = None) -> AsyncEngine:
    """The same pool; a connection begins a transaction: see `orm.commits.begin_by`."""
    writes = engine.execution_options()
    event.listen(writes.sync_engine, "begin", begin_by(_begin) if begin_by else _begin)
    return writes


def with_snapshots(engine: AsyncEngine) -> AsyncEngine:
    """The same pool; a connection begins a transaction, and sees the file as it was at
    its first statement.
    """
    snapshots = engine.execution_options()
    event.listen(snapshots.sync_engine, "begin", _begin_snapshot)
    return snapshots


def local_settings(settings: Mapping[str, str] | None) -> tuple[Any, Any] | None:
    """This database has none."""
    if settings:
        raise InvalidRequestError(
            "SQLite has no settings that end with a transaction, nor row level"
            " security: name the tenant in the WHERE of each statement."
        )
    return None


def for_export(engine: AsyncEngine) -> AsyncEngine:
    """For an export: one SELECT sees the file as it was when it began."""
    return engine


async def extend_timeouts(connection: AsyncConnection, seconds: float) -> None:
    """SQLite has no timeouts to raise."""


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return  # within a migration's autocommit_block()
    # A plain BEGIN takes the write lock at the first write, too late to wait for
    # it: SQLITE_BUSY at once, whatever the timeout says.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin_snapshot(connection: Connection) -> None:
    # It takes no lock that a writer would wait for.
    connection.exec_driver_sql("BEGIN")
