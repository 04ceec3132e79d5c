"""aiosqlite: how to connect, and how the transaction of a writer ends that was
cancelled, or whose task goes on.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import aiosqlite
from sqlalchemy import DateTime, Engine, event, exc
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.aiosqlite import SQLiteDialect_aiosqlite
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import await_only

from ..config.limits import Limits
from . import UNAWAITED
from .types import TextTime

DRIVERNAME = "sqlite+aiosqlite_checked"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")
# A task without a reference may vanish.
_RELEASES: set[asyncio.Task[None]] = set()
_OPENINGS: set[asyncio.Future[aiosqlite.Connection]] = set()


class Dialect(SQLiteDialect_aiosqlite):
    supports_statement_cache = True
    colspecs = SQLiteDialect_aiosqlite.colspecs | {DateTime: TextTime}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Connections with a statement that runs, once for each; those that wait for the
        # end of these, and take no other.
        self._running: list[Any] = []
        self._ending: list[Any] = []

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        # At DEBUG it would log the parameters, which are customers' data.
        logging.getLogger("aiosqlite").setLevel(logging.INFO)
        event.listen(engine, "connect", _set_pragmas)
        event.listen(engine, "invalidate", _release_lock)

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        # Python calls a connection "autocommit" even between BEGIN and COMMIT. Asked
        # this way, the pool still rolls back what a cancelled writer has left open.
        return not dbapi_conn.driver_connection.in_transaction

    def do_execute(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_execute, cursor, *args)

    def do_executemany(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_executemany, cursor, *args)

    def do_execute_no_params(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_execute_no_params, cursor, *args)

    def do_commit(self, dbapi_connection: Any) -> None:
        with self._ends(dbapi_connection.dbapi_connection) as was_running:
            if was_running:
                raise exc.IllegalStateChangeError(UNAWAITED)
            super().do_commit(dbapi_connection)  # type: ignore[no-untyped-call]

    def do_rollback(self, dbapi_connection: Any) -> None:
        with self._ends(dbapi_connection.dbapi_connection):
            super().do_rollback(dbapi_connection)  # type: ignore[no-untyped-call]

    def _execute(self, execute: Callable[..., None], cursor: Any, *args: Any) -> None:
        connection = args[-1].root_connection.connection.dbapi_connection
        if connection in self._ending:
            raise exc.InvalidRequestError(UNAWAITED)
        self._running.append(connection)
        try:
            execute(cursor, *args)
        finally:
            self._running.remove(connection)

    @contextmanager
    def _ends(self, connection: Any) -> Iterator[bool]:
        """The end of a transaction: a task that is not awaited can send no statement,
        which would commit by itself after it. True if one was running.
        """
        self._ending.append(connection)
        try:
            was_running = connection in self._running
            if was_running:
                await_only(connection.driver_connection.interrupt())
            while connection in self._running:
                await_only(asyncio.sleep(0.001))
            yield was_running
        finally:
            self._ending.remove(connection)


def connect_args(limits: Limits) -> dict[str, Any]:
    return {
        "async_creator_fn": _connect,
        # How long a writer waits for the one before it (SQLite's busy_timeout).
        "timeout": limits.lock_timeout_seconds,
    }


async def _connect(*args: Any, **kwargs: Any) -> aiosqlite.Connection:
    """Closes the file at once if the connect is cancelled."""
    connection = aiosqlite.connect(*args, **kwargs)
    connection._thread.daemon = True  # as SQLAlchemy does
    opening = asyncio.ensure_future(connection)

    def close(_: object) -> None:
        _OPENINGS.discard(opening)
        if not opening.cancelled() and not opening.exception():
            connection.stop()

    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        _OPENINGS.add(opening)
        opening.add_done_callback(close)
        raise


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
