"""The gate of the pool: in order, in time, and no permit is lost."""

import asyncio
import gc
import time
import warnings
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from threading import Thread
from typing import Any

import pytest
from fastapi import Request
from shop import main
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.engine import gate as gates
from shop.db.engine.create import ENGINES, create_engine
from shop.db.engine.gate import Aborted, Gate
from shop.db.engine.pool import FairPool
from shop.db.engine.timing import checkout_deadline, remaining
from shop.settings import Settings
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only as await_

POOL_SIZE = 5
caller: ContextVar[int] = ContextVar("caller", default=-1)


def engine_of(settings: Settings, size: int = POOL_SIZE) -> AsyncEngine:
    limits = {"database_pool_size": size, "database_max_overflow": 0}
    small = settings.model_copy(update=limits)
    return create_engine(small.server, small.limits)


def pool_of(engine: AsyncEngine) -> FairPool:
    assert isinstance(engine.pool, FairPool)
    return engine.pool


def gate_of(engine: AsyncEngine) -> Gate:
    return pool_of(engine).gate


@contextmanager
def checkouts(engine: AsyncEngine) -> Iterator[list[int]]:
    """The callers that have got a connection, in that order."""
    served: list[int] = []

    def note(*_: Any) -> None:
        served.append(caller.get())

    event.listen(engine.sync_engine, "checkout", note)
    yield served
    event.remove(engine.sync_engine, "checkout", note)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_200_requests_on_5_connections_are_served_in_order(
    settings: Settings, serve: Any
) -> None:
    arrived: list[int] = []
    # However slow the machine is, no caller is rejected.
    limits = {"database_acquire_timeout_seconds": 60, "database_max_overflow": 0}
    limits |= {"database_pool_size": POOL_SIZE}
    app = main.create_app(settings.model_copy(update=limits))

    @app.get("/probe/{number}")
    async def probe(number: int, request: Request) -> None:
        caller.set(number)
        arrived.append(number)
        async with request.state.database.engine.connect() as connection:
            await connection.execute(select(1))
            await asyncio.sleep(0.01)

    engines = set(ENGINES)
    async with serve(app) as client:
        (engine,) = set(ENGINES) - engines

        async def get(number: int) -> int:
            await turns(number)  # so that some arrive while others leave
            status: int = (await client.get(f"/probe/{number}")).status_code
            return status

        await asyncio.gather(*(get(number) for number in range(POOL_SIZE)))
        arrived.clear()
        with checkouts(engine) as served:
            statuses = await asyncio.gather(*(get(number) for number in range(200)))

    assert statuses == [200] * 200
    assert served == arrived


async def test_read_session_holds_no_connection_between_statements(
    settings: Settings,
) -> None:
    kept = select(1)
    async with open_database(settings) as database, database.read() as session:
        for _ in range(3):  # one that comes again goes another way
            await session.execute(kept)

        assert pool_of(database.engine).checkedout() == 0
        assert gate_of(database.engine).free == gate_of(database.engine).permits


async def test_full_pool_rejects_when_the_time_is_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(settings)
    async with AsyncExitStack() as all_connections:
        for _ in range(POOL_SIZE):
            await all_connections.enter_async_context(engine.connect())
        monkeypatch.setattr(engine.pool, "_timeout", 0.05)
        with pytest.raises(PoolTimeoutError):
            await engine.connect()

    await (await engine.connect()).close()  # the queue is empty again
    assert gate_of(engine).free == POOL_SIZE
    await engine.dispose()


async def test_callers_in_the_queue_have_their_turn_when_a_connect_fails(
    unreachable: Settings,
) -> None:
    engine = engine_of(unreachable, 1)

    async def fail() -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await engine.connect()
        return caught.value

    errors = await asyncio.gather(*(fail() for _ in range(5)))

    # None of them has waited in vain.
    assert not [error for error in errors if isinstance(error, PoolTimeoutError)]
    assert pool_of(engine).checkedout() == 0
    assert gate_of(engine).free == 1
    await engine.dispose()


async def test_pool_that_is_disposed_in_use_keeps_its_permits_apart(
    settings: Settings,
) -> None:
    engine = engine_of(settings, 1)
    old, old_gate = await engine.connect(), gate_of(engine)
    caller = asyncio.create_task(engine.connect().start())
    await turns(1)
    assert old_gate.waiting == 1
    async with asyncio.timeout(30):
        await engine.dispose()
        new = await engine.connect()  # the new pool has its own permit
        await old.invalidate()
        await old.close()
        late = await caller  # with the permit of the old connection
    assert gate_of(engine).free == old_gate.free == 0
    await late.invalidate()
    await late.close()
    assert (gate_of(engine).free, old_gate.free) == (0, 1)
    await new.close()
    assert (gate_of(engine).free, old_gate.free) == (1, 1)
    await engine.dispose()


async def test_connection_that_is_garbage_collected_gives_its_permit_back(
    settings: Settings,
) -> None:
    engine = engine_of(settings, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SQLAlchemy warns of it
        connection = await engine.connect()
        assert gate_of(engine).free == 0
        del connection
        gc.collect()

        assert gate_of(engine).free == 1
        async with asyncio.timeout(30), engine.connect():
            assert gate_of(engine).free == 0
    await engine.dispose()


async def test_connection_of_a_transaction_that_does_not_begin_is_returned(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a cancellation, where psycopg waits for its lock."""
    begins = "set_isolation_level" if DIALECT == "postgresql" else "do_begin"

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    async with open_database(settings) as database:
        async with database.read() as session:
            await session.execute(select(1))
        with monkeypatch.context() as patch:
            patch.setattr(database.engine.dialect, begins, cancelled)
            with pytest.raises(asyncio.CancelledError):
                async with database.write() as session:
                    await session.execute(select(1))

            assert pool_of(database.engine).checkedout() == 0
        async with database.write() as session:
            assert await session.scalar(select(1)) == 1


def queued(gate: Gate, seconds: float = 5) -> asyncio.Task[None]:
    return asyncio.create_task(gate.acquire(seconds))


def full(permits: int) -> Gate:
    gate = Gate(permits)
    while gate.acquire_nowait():
        pass
    return gate


async def test_permit_of_a_cancelled_caller_goes_to_the_next() -> None:
    gate = full(1)
    first, second = queued(gate), queued(gate)
    await turns(1)
    gate.release()
    first.cancel()

    await second
    assert first.cancelled()
    assert gate.free == 0


async def test_permit_of_a_cancelled_caller_stays_free() -> None:
    gate = full(1)
    caller = queued(gate)
    await turns(1)
    gate.release()
    caller.cancel()
    await asyncio.wait({caller})

    assert gate.acquire_nowait()


async def test_caller_that_is_cancelled_in_the_queue_gets_no_permit() -> None:
    gate = full(1)
    caller = queued(gate)
    await turns(1)
    caller.cancel()
    await asyncio.wait({caller})
    assert gate.waiting == 0
    gate.release()

    assert gate.free == 1


async def test_permit_that_another_thread_releases_wakes_a_caller() -> None:
    gate = full(1)
    caller = queued(gate)
    await turns(1)

    def release() -> None:
        time.sleep(0.1)  # by then the event loop sleeps
        gate.release()

    Thread(target=release).start()
    began = time.monotonic()
    await caller

    assert time.monotonic() - began < 3


async def test_callers_that_are_rejected_leave_the_queue() -> None:
    gate = full(1)
    callers = [queued(gate), queued(gate)]
    await turns(1)
    gate.reject_all()
    gate.release()  # before they run
    outcomes = await asyncio.gather(*callers, return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [Aborted] * 2
    assert (gate.waiting, gate.free) == (0, 1)


async def test_caller_that_is_sent_elsewhere_does_not_count_as_rejected(
    settings: Settings,
) -> None:
    """Its client gets an answer: from the primary, if this is the pool of a replica."""
    engine = engine_of(settings, size=1)
    pool = pool_of(engine)

    async def connect() -> None:
        async with engine.connect():
            pass

    async with engine.connect():
        caller = asyncio.create_task(connect())
        while not pool.gate.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        pool.abort(lambda _: None)
        with pytest.raises(PoolTimeoutError):
            await caller
    await engine.dispose()

    assert pool.rejected == 0


async def test_first_release_says_nothing_about_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All five are held for 1.1 s: nine callers wait 2.2 s, and not nine times 1.1."""
    now = 0.0
    monkeypatch.setattr(gates, "monotonic", lambda: now)
    gate = full(POOL_SIZE)
    callers = [queued(gate) for _ in range(10)]
    await turns(1)
    now = 1.1
    gate.release()
    newcomer = queued(gate, seconds=3)
    await turns(1)

    assert not newcomer.done()
    for _ in range(10):
        gate.release()
    await asyncio.gather(*callers, newcomer)


async def test_queue_that_is_too_long_rejects_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A permit is released every second: the second in the queue waits for 2 s."""
    now = 0.0
    monkeypatch.setattr(gates, "monotonic", lambda: now)
    gate = full(1)
    callers = [queued(gate, seconds=60) for _ in range(32)]
    await turns(1)
    while len(callers) > 2:
        now += 1
        gate.release()
        await callers.pop(0)

    rejected, patient = queued(gate, seconds=1.5), queued(gate, seconds=2.5)
    await turns(1)

    assert isinstance(rejected.exception(), TimeoutError)
    for _ in range(3):
        gate.release()
    await asyncio.gather(*callers, patient)
    assert gate.free == 0


async def test_permit_is_free_after_an_overflow_connection_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then the next caller would wait in the queue of SQLAlchemy's own pool."""
    limits = {"database_pool_size": 1, "database_max_overflow": 1}
    changed = settings.model_copy(update=limits)
    engine = create_engine(changed.server, changed.limits)
    connections = [await engine.connect(), await engine.connect()]
    close, may_close = engine.dialect.do_close, asyncio.Event()

    def close_late(connection: Any) -> None:
        await_(may_close.wait())
        close(connection)

    monkeypatch.setattr(engine.dialect, "do_close", close_late)
    callers = [asyncio.create_task(engine.connect().start()) for _ in range(2)]
    await turns(2)
    closing = [asyncio.create_task(each.close()) for each in connections]
    done, _ = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
    await turns(10)
    assert (len(done), gate_of(engine).waiting) == (1, 1)
    may_close.set()
    await asyncio.gather(*closing)

    for caller in callers:
        await (await caller).close()
    assert gate_of(engine).free == 2
    await engine.dispose()


async def test_checkout_keeps_the_deadline_of_its_caller(settings: Settings) -> None:
    """A probe has less time than the queue, the ping and the connect of a request."""
    engine = engine_of(settings)
    left: list[float] = []
    event.listen(
        engine.sync_engine, "do_connect", lambda *_: left.append(remaining(60))
    )
    token = checkout_deadline.set(time.monotonic() + 2)
    await (await engine.connect()).close()
    checkout_deadline.reset(token)

    assert left[0] <= 2
    await engine.dispose()


async def test_permit_is_released_once_when_a_connection_cannot_be_replaced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(settings, 1)
    async with engine.connect() as connection:
        await connection.invalidate()  # its place in the pool is empty now

    def fail(*_: Any, **__: Any) -> None:
        raise engine.dialect.loaded_dbapi.OperationalError("refused")

    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "connect", fail)
        with pytest.raises(DBAPIError):
            await engine.connect()

    assert gate_of(engine).free == 1
    await engine.dispose()
