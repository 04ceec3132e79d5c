"""Many rows: out as the reader takes them, in by the thousand, never all in memory."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar, TypeVarTuple

from anyio import CancelScope
from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Row
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from .dialect import allow_to_last, snapshot
from .faults import TookTooLong
from .session import Database
from .transaction import refuse_failed, roll_back

ROWS_AT_ONCE = 1000

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def export(database: Database) -> AsyncIterator[AsyncConnection]:
    """A connection for one long SELECT: `await connection.stream(query)`.

    It may take minutes, at the pace of its reader, so its limits are others, and at
    most a quarter of the pool is lent for it.
    """
    seconds = database.settings.database_export_timeout_seconds
    async with _place(database), snapshot(database.engine).connect() as connection:
        try:
            async with asyncio.timeout(seconds):
                await allow_to_last(connection, seconds)
                yield await connection.execution_options(
                    yield_per=ROWS_AT_ONCE, time_limit=seconds
                )
        except TimeoutError as error:
            raise TookTooLong(f"an export of more than {seconds:g} s") from error
        finally:
            # Its limits end with it, and what a reader that left has not read.
            await connection.invalidate(DisconnectionError("export"))


async def in_parts(rows: AsyncResult[*Ts]) -> AsyncIterator[Sequence[Row[*Ts]]]:
    """What `connection.stream()` gives, a thousand rows at a time."""
    while part := await _cancelled_once(rows.fetchmany()):
        yield part


@asynccontextmanager
async def load(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction for many rows: `await connection.execute(insert(Table), rows)`.

    A session would keep an object for each of them.
    """
    async with database.writes.connect() as connection:
        try:
            yield connection
            refuse_failed(connection.sync_connection)
            await database.commit(connection)
        except BaseException:
            await roll_back(connection)
            raise


@asynccontextmanager
async def _place(database: Database) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(database.settings.database_acquire_timeout_seconds):
            await database.exports.acquire()
    except TimeoutError:
        raise PoolTimeoutError("As many exports as may run at once do.") from None
    try:
        yield
    finally:
        database.exports.release()


async def _cancelled_once(fetch: Coroutine[Any, Any, T]) -> T:
    """Starlette cancels an answer whose reader has left at each turn of the loop until
    it ends, which leaves a driver no time to take leave of its server.
    """
    task = asyncio.create_task(fetch)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        task.cancel()
        with CancelScope(shield=True):
            await asyncio.gather(task, return_exceptions=True)
        raise
    return task.result()


async def _export(connection: HTTPConnection) -> AsyncIterator[AsyncConnection]:
    async with export(connection.state.database) as rows:
        yield rows


# To the end of the response, which reads from it.
Export = Annotated[AsyncConnection, Depends(_export, scope="request")]
