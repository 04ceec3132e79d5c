"""What MySQL and MariaDB are told and say: transactions, error codes, migrations."""

import asyncio
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

DIALECT = "mysql"
SCHEMES = ("mysql", "mariadb")
DEFAULT_PORT = 3306
LOWEST_LIMIT_SECONDS = 0  # InnoDB looks for deadlocks at once

# Which session it is, what time there; how many sessions there can be, and the limit.
SESSION = "SELECT CONNECTION_ID()"
CLOCK = "SELECT UNIX_TIMESTAMP(SYSDATE(6))"
CONNECTION_LIMIT = """
SELECT @@max_connections AS most, 'max_connections' AS whose
UNION SELECT @@max_user_connections, 'max_user_connections' FROM DUAL
    WHERE @@max_user_connections > 0
ORDER BY most LIMIT 1
"""

DUPLICATE = 1062
# A server that only reads, by its option or by its mode.
READ_ONLY = {1290, 1836}

# What an error number means for the caller.
FAULTS = {
    # Unique; not null; foreign keys; check constraints of MySQL and of MariaDB.
    "conflict": {DUPLICATE, 1048, 1451, 1452, 3819, 4025},
    # Lock wait, deadlock, changed since it was read; too many connections; no more
    # disk, memory, locks.
    "busy": {1205, 1213, 1020, 1040, 1203, 1226, 1021, 1037, 1041, 1206},
    # max_statement_time of MariaDB, max_execution_time of MySQL, KILL QUERY.
    "timeout": {1969, 3024, 1317},
    # Refused; unknown; lost, within a statement, by KILL, for being idle; stopping; no
    # such host; not encrypted.
    "unavailable": {2003, 2005, 2006, 2013, 1927, 4031, 1053, 1129, 1130, 2026}
    # Login, access, no such database; a locked account of MySQL and of MariaDB; a
    # transaction that only reads.
    | {1045, 1044, 1049, 3118, 4151, 1792}
    | READ_ONLY,
}

# An index may take an hour to build; a lock must not, because everybody who comes
# after a waiting ALTER TABLE waits with it.
MIGRATION_LIMITS = (
    "SET innodb_lock_wait_timeout=5, lock_wait_timeout=5"
    " /*M! , max_statement_time=3600, idle_transaction_timeout=3600 */"
    " /*!80000 , max_execution_time=3600000 */"
)


class ToItsEnd:
    """For the driver's connection: a cancelled caller waits for its statement.

    A server that is left alone goes on with it, and the next connection is one more
    than the pool may open: 200 cancellations made 190 sessions of a pool of 10.
    """

    # Not before it is connected: until then nobody would cut it.
    is_connected = False

    async def query(self, *args: Any, **kwargs: Any) -> Any:
        parent: Any = super()
        return await self._finish(parent.query(*args, **kwargs))

    async def commit(self) -> None:
        parent: Any = super()
        await self._finish(parent.commit())

    async def _finish(self, answer: Coroutine[Any, Any, Any]) -> Any:
        if not self.is_connected:
            return await answer
        task = asyncio.create_task(answer)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):  # once more
                    await asyncio.wait({task})
            task.exception()  # seen
            raise


def fault(error: DBAPIError) -> str | None:
    """Name the fault by its number; the class differs from driver to driver."""
    number = next(iter(error.orig.args if error.orig else ()), 0)
    return next((name for name, numbers in FAULTS.items() if number in numbers), None)


def is_read_only(error: BaseException) -> bool:
    """Whether the server refuses to write: the primary is another one now."""
    return error.args[:1] in [(number,) for number in READ_ONLY]


def message(error: BaseException) -> str:
    """What the server says, without the data that it quotes."""
    if error.args[:1] != (DUPLICATE,):
        return str(error)
    # "Duplicate entry 'ada' for key 'customer'", in the language of the server.
    return f"({DUPLICATE}, duplicate entry for {error.args[1].split()[-1]})"


def prepare(engine: AsyncEngine) -> None:
    # The server calls a session "autocommit" even between BEGIN and COMMIT. Asked
    # this way, the pool still rolls back what a cancelled writer has left open.
    setattr(engine.dialect, "detect_autocommit_setting", _is_idle)  # noqa: B010


def transactional(engine: AsyncEngine) -> AsyncEngine:
    """The same pool, with a transaction around what is executed."""
    writes = engine.execution_options()
    event.listen(writes.sync_engine, "begin", _begin)
    return writes


def snapshot(engine: AsyncEngine) -> AsyncEngine:
    """For an export: one SELECT, of which the server sends row by row."""
    return engine


async def allow_to_last(connection: AsyncConnection, seconds: float) -> None:
    """Lift the limits of this connection, for a reader who takes a break."""
    await connection.exec_driver_sql(
        f"SET net_write_timeout={max(1, round(seconds))}"
        f" /*M! , max_statement_time={seconds} */"
        f" /*!80000 , max_execution_time={round(seconds * 1000)} */"
    )


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the lock of this database that says "I migrate", if it is free.

    It ends with the connection, and so with a migration that is killed.
    """
    query = "SELECT GET_LOCK(CONCAT(LEFT(DATABASE(), 56), '.alembic'), 0)"
    return nullcontext() if connection.exec_driver_sql(query).scalar() else None


def _is_idle(connection: AsyncAdapt_dbapi_connection) -> bool:
    # SERVER_STATUS_AUTOCOMMIT is 2, SERVER_STATUS_IN_TRANS is 1.
    return bool(connection.driver_connection.server_status & 3 == 2)


def _begin(connection: Connection) -> None:
    # By hand: to switch autocommit off and on again would be two more round trips.
    connection.exec_driver_sql("BEGIN")
