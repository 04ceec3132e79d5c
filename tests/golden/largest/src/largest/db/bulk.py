"""Many rows: streamed out as their reader takes them, and inserted in batches."""

import asyncio
import csv
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import datetime
from enum import Enum
from io import StringIO
from typing import Annotated, Any, TypeVar, TypeVarTuple
from urllib.parse import quote

from anyio import CancelScope
from fastapi import Depends
from fastapi.requests import HTTPConnection
from fastapi.responses import StreamingResponse
from sqlalchemy import Row, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncResult

from .database import Database
from .engine.dialect import extend_timeouts, for_export, local_settings
from .errors import CommitOutcomeUnknown, OperationTimeout
from .json_text import json_text
from .orm import GUARDED
from .orm.commits import begin_by
from .orm.writes import roll_back

BATCH_SIZE = 1000
# What a spreadsheet takes for the beginning of a formula (OWASP, CSV injection).
FORMULA = ("=", "+", "-", "@", "\t", "\r")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


@asynccontextmanager
async def export(
    database: Database, settings: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncConnection]:
    """A connection for one long SELECT: `await connection.stream(query)`.

    The export may take minutes, at the pace of its reader, so it has timeouts of its
    own. At most `exports_at_once` run at a time; the next one waits for its turn.
    `settings` are those of `database.write()`.
    """
    local = local_settings(settings)
    limits = database.settings.limits
    seconds = limits.export_timeout_seconds
    async with (
        _turn(database.exports, limits.acquire_timeout_seconds),
        for_export(database.engine).connect() as connection,
    ):
        try:
            async with asyncio.timeout(seconds) as limit:
                await extend_timeouts(connection, seconds)
                if local:
                    await connection.execute(*local)
                yield await connection.execution_options(
                    yield_per=BATCH_SIZE, time_limit=seconds, **GUARDED
                )
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise OperationTimeout(f"an export of more than {seconds:g} s") from error
        finally:
            # Its timeouts end with it, and the rows that were not read.
            await connection.invalidate(DisconnectionError("export"))


async def batches(rows: AsyncResult[*Ts]) -> AsyncIterator[Sequence[Row[*Ts]]]:
    """The rows of `connection.stream()`, a thousand at a time."""
    while batch := await _shield_fetch(rows.fetchmany()):
        yield batch


async def csv_lines(
    rows: AsyncResult[Any], *, text_of: Callable[[str], str] = str
) -> AsyncIterator[str]:
    """The rows of `connection.stream()` as CSV, below the names of their columns."""
    yield _csv([rows.keys()])
    async for batch in batches(rows):
        yield _csv([[_value(each, text_of) for each in row] for row in batch])


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _value(value: Any, text_of: Callable[[str], str]) -> Any:
    match value:
        case Enum():
            return _value(value.value, text_of)
        case str():
            return text_of(value)
        case datetime():
            return value.isoformat()
        case bytes():
            return value.hex()
        case dict() | list():
            return json_text(value)
    return value


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


class Csv(StreamingResponse):
    """A file of the rows of `connection.stream()`, with the names of their columns.

    A text that a spreadsheet would take for a formula has an apostrophe before it:
    use `csv_lines()` for a machine.
    """

    media_type = "text/csv"

    # FastAPI takes the status of its API document from this default.
    def __init__(
        self, rows: AsyncResult[Any], filename: str, status_code: int = 200
    ) -> None:
        quoted = quote(filename, safe="")
        name = f'="{filename}"' if quoted == filename else f"*=utf-8''{quoted}"
        headers = {"Content-Disposition": f"attachment; filename{name}"}
        lines = csv_lines(rows, text_of=_no_formula)
        super().__init__(lines, status_code, headers)


@asynccontextmanager
async def bulk_insert(
    database: Database, settings: Mapping[str, str] | None = None
) -> AsyncIterator[AsyncConnection]:
    """A transaction for many rows: `await connection.execute(insert(Table), rows)`.

    A session would keep an object for each of them. `settings` are those of
    `database.write()`.
    """
    local = local_settings(settings)
    async with database.writes.connect() as connection:
        try:
            if local:  # also of the next transaction, if the block commits itself
                set_local = begin_by(lambda begun: begun.execute(*local))
                event.listen(connection.sync_connection, "begin", set_local)
            yield connection
            await connection.commit()
            await connection.run_sync(database.router.committed)
        except BaseException as error:
            await roll_back(connection)
            is_partial = database.commits.any_of(connection.sync_connection)
            if is_partial or isinstance(error, CommitOutcomeUnknown):
                database.router.may_have_committed()
            if is_partial:
                database.commits.reject_partial(error)
            raise


@asynccontextmanager
async def _turn(exports: asyncio.Semaphore, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            await exports.acquire()
    except TimeoutError:
        raise PoolTimeoutError(
            "as many exports as may run at once are running"
        ) from None
    try:
        yield
    finally:
        exports.release()


async def _shield_fetch(fetch: Coroutine[Any, Any, T]) -> T:
    """anyio repeats a cancellation at every await; the driver needs one uninterrupted
    await to close its cursor.
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


# Until the response has ended, which reads from it.
Export = Annotated[AsyncConnection, Depends(_export, scope="request")]

Database.sessions[_export] = True
