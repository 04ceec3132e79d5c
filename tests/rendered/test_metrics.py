"""The metrics of the pool are true, also after errors and cancellations."""

import asyncio
import json
import logging
import re
from contextlib import AsyncExitStack
from io import StringIO
from random import Random
from typing import Any

import pytest
from httpx2 import AsyncClient
from prometheus_client import REGISTRY
from shop import main
from shop.db import Database, Write, open_database
from shop.db.engine import metrics, pool, timing
from shop.db.engine.create import create_engine
from shop.settings import Settings
from shop.web import LOG_STREAM
from sqlalchemy import event, select
from sqlalchemy.exc import DisconnectionError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture(autouse=True)
async def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait until the other engines of this process do not write metrics any more."""
    monkeypatch.setattr(timing, "REST_SECONDS", 0)
    await asyncio.sleep(2 * metrics.REFRESH_SECONDS)
    monkeypatch.setattr(metrics, "REFRESH_SECONDS", 0.01)


@pytest.fixture
def small(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"database_pool_size": 2, "database_max_overflow": 0}
    )


@pytest.fixture
def engine(small: Settings) -> AsyncEngine:
    """A test disposes it: a fixture that does would have a loop of its own."""
    return create_engine(small.server, small.limits)


class Output(StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        self.written.set()
        return super().write(text)


def metric(name: str, **labels: str) -> float:
    sample = f"database_pool_{name}"
    return REGISTRY.get_sample_value(sample, {"pool": "primary", **labels}) or 0


async def becomes(number: float, name: str, **labels: str) -> bool:
    async with asyncio.timeout(15):
        while metric(name, **labels) != number:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return True


async def test_session_is_counted_while_it_lasts(small: Settings) -> None:
    names = ("wait_seconds_count", "connections_created_total")
    before = {name: metric(name) for name in names}
    async with open_database(small) as database:
        async with database.write() as session:
            await session.execute(select(1))

            assert await becomes(1, "in_use")
        assert await becomes(0, "in_use")
    # Above: another engine of this process may export its last ones as well.
    assert all(metric(name) > number for name, number in before.items())
    assert metric("size") == 2


async def test_queue_and_rejections_are_counted_and_logged_once_a_second(
    engine: AsyncEngine,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = metric("refused_total")
    async with AsyncExitStack() as all_connections:
        for _ in range(2):
            await all_connections.enter_async_context(engine.connect())
        monkeypatch.setattr(engine.pool, "_timeout", 3)
        with caplog.at_level(logging.WARNING):
            callers = []
            for _ in range(3):
                callers.append(asyncio.create_task(engine.connect().start()))
                await asyncio.sleep(0.05)

            assert await becomes(3, "waiting")
            for outcome in await asyncio.gather(*callers, return_exceptions=True):
                assert isinstance(outcome, PoolTimeoutError)
            assert await becomes(before + 3, "refused_total")
    assert await becomes(0, "waiting")
    assert await becomes(0, "in_use")
    assert "checkouts: Pool size: 2" in caplog.text
    assert 0 < caplog.text.count("rejected") < 3
    await engine.dispose()


async def test_idle_pool_is_idle_after_a_storm_of_cancellations(
    small: Settings,
) -> None:
    random = Random(7)  # noqa: S311

    async def read(database: Database) -> None:
        async with database.read() as session:
            await session.execute(select(1))

    async def write(database: Database) -> None:
        async with database.write() as session:
            await session.execute(select(1))

    # The writers of SQLite wait for each other, on a busy machine for long.
    patient = small.model_copy(update={"database_lock_timeout_seconds": 30})
    async with open_database(patient) as database:
        for _ in range(20):
            units = [asyncio.create_task(read(database)) for _ in range(5)]
            units += [asyncio.create_task(write(database)) for _ in range(5)]
            for unit in units:
                asyncio.get_running_loop().call_later(random.random() / 50, unit.cancel)
            await asyncio.wait(units)

        assert await becomes(0, "in_use")
        assert await becomes(0, "waiting")
        await read(database)
        await write(database)
        assert isinstance(database.engine.pool, pool.FairPool)
        assert database.engine.pool.gate.free == 2


async def test_connection_of_a_disposed_pool_is_not_counted(
    engine: AsyncEngine,
) -> None:
    old = await engine.connect()
    await engine.dispose()
    new = await engine.connect()
    await old.invalidate()
    await old.close()

    assert await becomes(1, "in_use")
    await new.close()
    assert await becomes(0, "in_use")
    await engine.dispose()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DisconnectionError("lifetime"), "lifetime"),
        (InvalidatePoolError("validation"), "validation"),
        (asyncio.CancelledError(), "cancelled"),
        (None, "error"),
    ],
)
async def test_invalidated_connection_is_counted_with_the_reason(
    engine: AsyncEngine, error: BaseException | None, reason: str
) -> None:
    before = metric("connections_invalidated_total", reason=reason)
    async with engine.connect() as connection:
        await connection.invalidate(error)

    assert metric("connections_invalidated_total", reason=reason) == before + 1
    await engine.dispose()


async def test_connection_that_a_listener_refuses_is_counted_once(
    engine: AsyncEngine,
) -> None:
    before = metric("wait_seconds_count"), metric("connections_created_total")

    @event.listens_for(engine.sync_engine, "checkout", once=True)
    def refuse(*_: object) -> None:
        raise DisconnectionError

    async with engine.connect():
        assert await becomes(before[0] + 1, "wait_seconds_count")
        assert metric("in_use") == 1
    assert metric("connections_created_total") == before[1] + 2
    await engine.dispose()


@pytest.mark.parametrize("trace", [False, True])
async def test_leak_is_logged_with_its_request_and_place(
    settings: Settings, serve: Any, monkeypatch: pytest.MonkeyPatch, trace: bool
) -> None:
    output = Output()
    monkeypatch.setattr(f"sys.{LOG_STREAM}", output)
    monkeypatch.setattr(metrics, "LEAK_SECONDS", 0.05)
    monkeypatch.setattr(pool, "PACKAGE", __name__)
    app = main.create_app(settings.model_copy(update={"database_leak_trace": trace}))

    @app.get("/probe")
    async def probe(session: Write) -> float:
        await session.execute(select(1))
        await asyncio.wait_for(output.written.wait(), 20)
        return metric("leaked")

    async with serve(app) as client:
        leaked = await client.get("/probe", headers={"X-Request-ID": "abc"})

    line = json.loads(output.getvalue())
    place = f"{__name__}:{probe.__code__.co_firstlineno + 2}"
    assert leaked.json() == 1
    assert await becomes(0, "leaked")
    start = r"connection checked out for \d+ s, possible leak: "
    assert re.match(start, line["message"])
    assert (place in line["message"]) is trace
    assert line["request_id"] == "abc"
    assert (line["pool"], line["seconds"] < 5) == ("primary", True)
    assert line["message"].endswith(line["at"])


async def test_scrape_shows_the_metrics(client: AsyncClient) -> None:
    answer = await client.get("http://test:9808/metrics")

    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'database_pool_size{pool="primary"}' in answer.text
