"""The queue in front of the pool: in order, in time, and nothing gets lost."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, cast

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.util import greenlet_spawn
from sqlalchemy.util.queue import Empty

from largest import main
from largest.db import pool
from largest.db.engine import ENGINES, create_engine
from largest.db.pool import FairQueue
from largest.db.session import Read
from largest.settings import Settings

POOL_SIZE = 5
CONNECTION = cast(ConnectionPoolEntry, "a connection")
caller: ContextVar[int] = ContextVar("caller", default=-1)


@pytest.fixture
def small(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"database_pool_size": POOL_SIZE, "database_max_overflow": 0}
    )


@contextmanager
def checkouts(engine: AsyncEngine) -> Iterator[list[int]]:
    """Who has got a connection, in that order."""
    seen: list[int] = []

    def note(*_: Any) -> None:
        seen.append(caller.get())

    event.listen(engine.sync_engine, "checkout", note)
    yield seen
    event.remove(engine.sync_engine, "checkout", note)


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_200_requests_on_5_connections_are_served_in_order(
    small: Settings, serve: Any
) -> None:
    arrived: list[int] = []
    # However slow the machine is, nobody is refused.
    patient = small.model_copy(update={"database_acquire_timeout_seconds": 60})
    app = main.create_app(patient)

    @app.get("/probe/{number}")
    async def probe(number: int, session: Read) -> None:
        caller.set(number)
        arrived.append(number)
        await session.execute(select(1))
        await asyncio.sleep(0.01)

    engines = set(ENGINES)
    async with serve(app) as client:
        (engine,) = set(ENGINES) - engines

        async def get(number: int) -> int:
            await turns(number)  # so that some arrive while others leave
            return (await client.get(f"/probe/{number}")).status_code

        await asyncio.gather(*(get(number) for number in range(POOL_SIZE)))
        arrived.clear()
        with checkouts(engine) as served:
            statuses = await asyncio.gather(*(get(number) for number in range(200)))

    assert statuses == [200] * 200
    assert served == arrived


async def test_full_pool_refuses_when_the_time_is_up(
    small: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_engine(small)
    async with AsyncExitStack() as all_connections:
        for _ in range(POOL_SIZE):
            await all_connections.enter_async_context(engine.connect())
        monkeypatch.setattr(engine.pool, "_timeout", 0.05)
        with pytest.raises(PoolTimeoutError):
            await engine.connect()

    await (await engine.connect()).close()  # the line is empty again
    await engine.dispose()


async def test_callers_in_line_have_their_turn_when_a_connect_fails(
    unreachable: Settings,
) -> None:
    engine = create_engine(
        unreachable.model_copy(
            update={"database_pool_size": 1, "database_max_overflow": 0}
        )
    )

    async def fail() -> Exception:
        with pytest.raises(Exception) as caught:  # noqa: PT011
            await engine.connect()
        return caught.value

    errors = await asyncio.gather(*(fail() for _ in range(5)))

    # None of them has waited in vain.
    assert not [error for error in errors if isinstance(error, PoolTimeoutError)]
    assert engine.pool.checkedout() == 0
    await engine.dispose()


async def test_disposal_does_not_wait_for_a_place_that_is_promised(
    small: Settings,
) -> None:
    engine = create_engine(small)
    await (await engine.connect()).close()
    queue: Any = engine.pool._pool  # type: ignore[attr-defined]
    queue.places, queue.has_room = 1, False

    async with asyncio.timeout(5):
        await engine.dispose()
    assert queue.places == 1


def in_line(queue: FairQueue, at_most: float = 5) -> asyncio.Task[Any]:
    return asyncio.create_task(greenlet_spawn(queue.get, True, at_most))


async def test_connection_handed_to_a_cancelled_caller_goes_to_the_next() -> None:
    queue = FairQueue(maxsize=1)
    first, second = in_line(queue), in_line(queue)
    await turns(1)
    queue.put(CONNECTION)
    first.cancel()

    assert await second is CONNECTION


async def test_connection_handed_to_a_cancelled_caller_stays_in_the_pool() -> None:
    queue = FairQueue(maxsize=1)
    caller = in_line(queue)
    await turns(1)
    queue.put(CONNECTION)
    caller.cancel()
    await asyncio.wait({caller})

    assert queue.get(block=False) is CONNECTION


async def test_first_connection_to_come_back_says_nothing_about_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All five are held for 1.1 s: nine in line wait 2.2 s, and not nine times 1.1."""
    now = 0.0
    monkeypatch.setattr(pool, "monotonic", lambda: now)
    queue = FairQueue(maxsize=POOL_SIZE)
    callers = [in_line(queue) for _ in range(10)]
    await turns(1)
    now = 1.1
    queue.put(CONNECTION)
    newcomer = in_line(queue, at_most=3)
    await turns(1)

    assert not newcomer.done()
    for _ in range(10):
        queue.put(CONNECTION)
    await asyncio.gather(*callers, newcomer)


async def test_line_that_is_too_long_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection comes back every second: the second in line has 2 s to wait."""
    now = 0.0
    monkeypatch.setattr(pool, "monotonic", lambda: now)
    queue = FairQueue(maxsize=1)
    callers = [in_line(queue, at_most=60) for _ in range(32)]
    await turns(1)
    while len(callers) > 2:
        now += 1
        queue.put(CONNECTION)
        await callers.pop(0)

    refused, patient = in_line(queue, at_most=1.5), in_line(queue, at_most=2.5)
    await turns(1)

    assert isinstance(refused.exception(), Empty)
    for _ in range(3):
        queue.put(CONNECTION)
    await asyncio.gather(*callers, patient)
