"""A connection in an unknown state is not used again."""

import asyncio
from importlib.util import find_spec
from typing import Any

import pytest
from shop.db import Database
from shop.db.config.backend import DIALECT
from shop.db.engine.create import create_engine
from shop.db.engine.driver import Dialect
from shop.settings import Settings
from sqlalchemy import select, text
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.util import await_only as await_
from test_sessions import checked_out

SLEEP = text(
    {"mysql": "SELECT SLEEP(:seconds)"}.get(DIALECT, "SELECT pg_sleep(:seconds)")
)
IDENTITY = text(
    {"mysql": "SELECT CONNECTION_ID()"}.get(DIALECT, "SELECT pg_backend_pid()")
)


def needs_pool(test: Any) -> Any:
    """A function on Lambda has none, and so not this test."""
    return test if find_spec("shop.db.engine.pool") else None


async def test_connection_that_broke_its_driver_is_not_used_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is none of the driver's: what the server sends next is unknown."""
    engine = create_engine(settings.server, settings.limits)

    def fail(*_: Any) -> None:
        raise AssertionError("no pipeline")

    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        before = (await connection.get_raw_connection()).driver_connection
        with monkeypatch.context() as patch:
            for name in ("do_execute", "do_execute_no_params"):
                patch.setattr(DefaultDialect, name, fail)
            with pytest.raises(AssertionError):
                await connection.exec_driver_sql("SELECT 1")
    async with engine.connect() as connection:
        after = (await connection.get_raw_connection()).driver_connection

    assert after is not before
    await engine.dispose()


async def test_error_of_the_event_loop_is_a_lost_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of uvloop, for a socket that is closed: none of the driver."""
    engine = create_engine(settings.server, settings.limits)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection

        def fail(*_: Any) -> None:
            engine.dialect.watchdog.shut_down(raw)  # type: ignore[attr-defined]
            raise RuntimeError("the handler is closed")

        monkeypatch.setattr(DefaultDialect, "do_execute", fail)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(select(1))

    assert caught.value.connection_invalidated
    await engine.dispose()


async def test_queries_of_each_connect_are_bounded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLAlchemy sends some on each connection, and not on the first one alone."""
    bounded: list[bool] = []

    def note(connection: Any) -> None:
        bounded.append(connection in engine.dialect.watchdog._armed)  # type: ignore[attr-defined]

    monkeypatch.setattr(Dialect, "on_connect", lambda _: note)
    engine = create_engine(settings.server, settings.limits)
    async with engine.connect(), engine.connect():
        pass

    assert bounded == [True, True]
    await engine.dispose()


@needs_pool
async def test_connection_that_is_not_trusted_is_closed_without_waiting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation within a wait would lose the place in the pool."""
    engine = create_engine(settings.server, settings.limits)
    never = asyncio.Event()
    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_terminate", lambda _: await_(never.wait()))
        async with asyncio.timeout(10):
            connection = await engine.connect()
            (await connection.get_raw_connection()).info["reset_failed"] = True
            await connection.close()

    await engine.dispose()


async def sleep_unawaited(session: Any, seconds: float) -> asyncio.Task[Any]:
    """A task that has sent its statement when this returns."""
    connection = await (await session.connection()).get_raw_connection()
    watchdog = session.bind.dialect.watchdog
    task = asyncio.create_task(session.execute(SLEEP, {"seconds": seconds}))
    while not watchdog.is_waiting(connection):  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(10):  # the driver sends it
        await asyncio.sleep(0)
    return task


async def test_closed_connection_is_logged_with_its_server(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(settings.server, settings.limits)
    async with engine.connect() as connection:
        bounded = await connection.execution_options(time_limit=0.1)
        with pytest.raises(DBAPIError):
            await bounded.execute(SLEEP, {"seconds": 30.0})
    await engine.dispose()

    (record,) = [each for each in caplog.records if "gave no answer" in each.message]
    facts = vars(record)
    assert (facts["seconds"], facts["pool"]) == (0.1, "primary")
    assert facts["server"] in record.message


@pytest.mark.parametrize("way", ["commit", "rollback"])
async def test_session_that_ends_within_a_statement_closes_its_connection(
    database: Database, way: str
) -> None:
    """Else its task and the next session read the answers of one connection."""
    wanted = InvalidRequestError if way == "commit" else ZeroDivisionError
    before, task = 0, None

    async def use() -> None:
        nonlocal before, task
        async with database.write() as session:
            before = await session.scalar(IDENTITY)
            task = await sleep_unawaited(session, 5.0)
            if way == "rollback":
                raise ZeroDivisionError

    async with asyncio.timeout(4):
        with pytest.raises(wanted):
            await use()
        assert task
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        async with database.read() as other:
            after = await other.scalar(IDENTITY)  # type: ignore[call-overload]

    assert isinstance(outcome, Exception)
    assert after != before


async def test_each_of_two_statements_at_once_is_bounded(database: Database) -> None:
    """The end of the first wait is not that of the second."""
    async with database.write() as session:
        first = await sleep_unawaited(session, 1.0)
        # Both together take less than the limit of a statement, one after the other.
        second = asyncio.create_task(session.execute(SLEEP, {"seconds": 3.0}))
        await asyncio.sleep(0)  # the second has begun, however slow the machine is
        await first
        connection = await (await session.connection()).get_raw_connection()
        is_bounded = session.bind.dialect.watchdog.is_waiting(connection)  # type: ignore[union-attr]
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        await session.rollback()

    assert is_bounded


@pytest.mark.parametrize("error", [ConnectionError, asyncio.CancelledError])
async def test_connection_whose_isolation_level_is_not_reset_is_replaced(
    database: Database, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """The drivers of MySQL ask the server, at the checkin."""

    def fail(*_: object) -> None:
        raise error

    async def use(**options: str) -> None:
        async with database.write() as session:
            connection = await session.connection(execution_options=options)
            used.append((await connection.get_raw_connection()).driver_connection)
        await asyncio.sleep(0)

    used: list[Any] = []

    with monkeypatch.context() as patch:
        patch.setattr(DefaultDialect, "reset_isolation_level", fail)
        task = asyncio.create_task(use(isolation_level="SERIALIZABLE"))
        await asyncio.wait({task})

    assert task.cancelled() is (error is asyncio.CancelledError)
    assert checked_out(database) == 0
    await use()
    assert used[1] is not used[0]
