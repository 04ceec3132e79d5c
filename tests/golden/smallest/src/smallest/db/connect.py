"""What aiosqlite must be told, and how a cancelled writer is ended."""

import asyncio
import logging
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiosqlite
from sqlalchemy import event
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    from .settings import DatabaseSettings

_RELEASES: set[asyncio.Task[None]] = set()  # a task that nobody holds may vanish

DRIVER = "aiosqlite"


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    # How long a writer waits for the one before it (SQLite's busy_timeout).
    return {"timeout": settings.database_lock_timeout_seconds}


def prepare(engine: AsyncEngine, settings: "DatabaseSettings") -> None:
    """What every connection of the pool needs."""
    # At DEBUG it would write down the parameters, which are customers' data.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    event.listen(engine.sync_engine, "connect", _set_pragmas)
    event.listen(engine.sync_engine, "invalidate", _release_lock)
    # Python calls a connection "autocommit" even between BEGIN and COMMIT. Asked
    # this way, the pool still rolls back what a cancelled writer has left open.
    setattr(engine.dialect, "detect_autocommit_setting", _is_idle)  # noqa: B010


def _is_idle(connection: AsyncAdapt_dbapi_connection) -> bool:
    return not connection.driver_connection.in_transaction


def _release_lock(connection: AsyncAdapt_dbapi_connection, *_: Any) -> None:
    """End the transaction of a cancelled writer before its connection is closed.

    SQLite keeps a connection alive whose statement still runs, and with it the lock
    that every other writer waits for.
    """

    async def release(driver: aiosqlite.Connection) -> None:
        with suppress(ValueError, sqlite3.Error):  # closed already
            await driver.interrupt()
            await driver.rollback()

    task = asyncio.ensure_future(release(connection.driver_connection))
    _RELEASES.add(task)
    task.add_done_callback(_RELEASES.discard)


def _set_pragmas(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # readers and the writer do not wait
    cursor.execute("PRAGMA synchronous=NORMAL")  # safe with WAL
    cursor.execute("PRAGMA foreign_keys=ON")  # off by default
    cursor.close()
