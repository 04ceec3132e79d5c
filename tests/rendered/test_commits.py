"""COMMIT of a handler's own: never an answer that "nothing was changed"."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from shop.db import Database, Write, bulk_insert
from shop.db.config.backend import DIALECT
from shop.db.errors import CommitOutcomeUnknown, FaultKind, classify
from sqlalchemy import Connection, insert, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from test_sessions import PROBES, checked_out, probes, rows

pytestmark = pytest.mark.usefixtures(probes.__name__)
INSERT = insert(PROBES)

Unit = Callable[[Database], AbstractAsyncContextManager[Any]]
UNITS: dict[str, Unit] = {"write": lambda each: each.write(), "bulk": bulk_insert}


@asynccontextmanager
async def commit(unit: Any) -> AsyncIterator[None]:
    yield
    await unit.commit()


@asynccontextmanager
async def begin(unit: Any) -> AsyncIterator[None]:
    async with unit.begin():
        yield


@asynccontextmanager
async def end(_: Any) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("way", [commit, begin, end])
@pytest.mark.parametrize("unit", UNITS)
async def test_commit_that_is_lost_is_an_unknown_outcome(
    database: Database, monkeypatch: pytest.MonkeyPatch, unit: str, way: Any
) -> None:
    """Whichever code has sent it. SQLite has answered each."""
    dialect: Any = database.engine.dialect

    def lose(_: object) -> None:
        raise dialect.loaded_dbapi.OperationalError("lost")

    monkeypatch.setattr(dialect, "do_commit", lose)
    monkeypatch.setattr(dialect, "is_disconnect", lambda *_: True)
    with pytest.raises((CommitOutcomeUnknown, DBAPIError)) as caught:
        async with UNITS[unit](database) as session, way(session):
            await session.execute(INSERT.values(id=1))

    is_known = DIALECT == "sqlite"
    expected = FaultKind.UNAVAILABLE if is_known else FaultKind.OUTCOME_UNKNOWN
    assert classify(caught.value) == expected
    assert checked_out(database) == 0


@pytest.mark.parametrize("way", [commit, begin])
@pytest.mark.parametrize("unit", UNITS)
async def test_error_after_a_commit_does_not_say_that_nothing_was_changed(
    database: Database, unit: str, way: Any
) -> None:
    with pytest.raises(CommitOutcomeUnknown, match="committed before conflict"):  # noqa: PT012
        async with UNITS[unit](database) as session:
            async with way(session):
                await session.execute(INSERT.values(id=1))
            await session.execute(INSERT.values(id=1))

    assert await rows(database) == [1]


@pytest.mark.parametrize("unit", UNITS)
async def test_what_follows_a_commit_is_committed_at_the_end(
    database: Database, unit: str
) -> None:
    async with UNITS[unit](database) as session:
        await session.execute(INSERT.values(id=1))
        await session.commit()
        await session.execute(INSERT.values(id=2))
        await session.rollback()
        await session.execute(INSERT.values(id=3))

    assert await rows(database) == [1, 3]


@pytest.mark.parametrize("unit", UNITS)
async def test_error_after_a_rollback_is_what_it_was(
    database: Database, unit: str
) -> None:
    with pytest.raises(IntegrityError):  # noqa: PT012
        async with UNITS[unit](database) as session:
            await session.execute(INSERT.values(id=1))
            await session.rollback()
            await session.execute(INSERT, [{"id": 2}, {"id": 2}])

    assert await rows(database) == []


@pytest.mark.parametrize("unit", UNITS)
async def test_handler_cannot_commit_after_a_statement_has_failed(
    database: Database, unit: str
) -> None:
    """PostgreSQL would answer with a ROLLBACK, and no error."""
    with pytest.raises(InvalidRequestError):  # noqa: PT012
        async with UNITS[unit](database) as session:
            await session.execute(INSERT.values(id=1))
            with suppress(IntegrityError):
                await session.execute(INSERT.values(id=1))
            with suppress(InvalidRequestError):
                await session.commit()
            await session.execute(text("SELECT 1"))

    assert await rows(database) == []
    assert checked_out(database) == 0


@pytest.mark.parametrize("unit", UNITS)
async def test_no_statement_follows_one_that_has_failed(
    database: Database, unit: str
) -> None:
    """After a deadlock MySQL is without a transaction: it would commit by itself."""
    with pytest.raises(InvalidRequestError):  # noqa: PT012
        async with UNITS[unit](database) as session:
            await session.execute(INSERT.values(id=1))
            with suppress(IntegrityError):
                await session.execute(INSERT.values(id=1))
            with pytest.raises(InvalidRequestError, match="has failed"):
                await session.execute(INSERT.values(id=2))

    assert await rows(database) == []
    assert checked_out(database) == 0


@pytest.mark.parametrize("unit", UNITS)
async def test_later_savepoint_does_not_mend_what_has_failed(
    database: Database, unit: str
) -> None:
    """As after a deadlock, which has rolled back all."""
    with pytest.raises(InvalidRequestError, match="has failed"):  # noqa: PT012
        async with UNITS[unit](database) as session:
            await session.execute(INSERT.values(id=1))
            with suppress(IntegrityError):
                await session.execute(INSERT.values(id=1))
            with suppress(ZeroDivisionError):
                async with session.begin_nested():
                    raise ZeroDivisionError

    assert await rows(database) == []
    assert checked_out(database) == 0


async def test_bulk_insert_does_not_go_on_in_another_connection(
    database: Database,
) -> None:
    """Each statement would commit by itself there."""
    with pytest.raises(DBAPIError, match="lost") as caught:  # noqa: PT012
        async with bulk_insert(database) as connection:
            await connection.execute(INSERT.values(id=1))
            await connection.invalidate()
            await connection.rollback()
            await connection.execute(INSERT.values(id=2))

    assert classify(caught.value) == FaultKind.UNAVAILABLE
    assert await rows(database) == []
    assert checked_out(database) == 0


async def test_connection_that_could_not_begin_executes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_local = DIALECT == "postgresql"  # which begins by its settings alone
    name = "execute" if is_local else "exec_driver_sql"
    execute = getattr(Connection, name)
    errors = iter([OSError("away")])

    def fail_once(
        connection: Connection, statement: Any, *rest: Any, **more: Any
    ) -> Any:
        if str(statement).startswith(("BEGIN", "SELECT set_config")):
            for error in errors:
                raise error
        return execute(connection, statement, *rest, **more)

    with pytest.raises(InvalidRequestError, match="closed"):  # noqa: PT012
        async with bulk_insert(
            database, {"app.tenant": "acme"} if is_local else None
        ) as connection:
            monkeypatch.setattr(Connection, name, fail_once)
            with suppress(OSError):
                await connection.execute(INSERT.values(id=1))
            await connection.execute(INSERT.values(id=2))

    assert await rows(database) == []
    assert checked_out(database) == 0


@pytest.mark.parametrize("unit", UNITS)
async def test_cancellation_after_a_commit_leaves_no_known_outcome(
    database: Database, unit: str
) -> None:
    """A task that is over its time would be reported as rolled back."""
    interrupted, committed = database.commits.interrupted, asyncio.Event()

    async def work() -> None:
        async with UNITS[unit](database) as session:
            await session.execute(INSERT.values(id=1))
            await session.commit()
            committed.set()
            await asyncio.Event().wait()

    working = asyncio.create_task(work())
    await committed.wait()
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working

    assert database.commits.interrupted == interrupted + 1


async def test_answer_after_a_commit_of_its_own(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(INSERT.values(id=1))
        await session.commit()
        await session.execute(INSERT.values(id=1))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:problem:outcome-unknown"
    assert "in part" in answer.json()["detail"]
    assert await rows(database) == [1]
