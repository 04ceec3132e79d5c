"""A request that would not get a connection is rejected before anything is done."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from httpx2 import AsyncClient, Response
from prometheus_client import REGISTRY
from pydantic import BaseModel
from shop import api, main
from shop.db import Database, Export, Read, Write
from shop.db.engine import metrics
from shop.db.engine.pool import MAX_RETRY_SECONDS, FairPool, retry_after
from shop.features import OBSERVERS
from shop.settings import Settings
from shop.web import overload
from shop.web.request_metrics import RequestMetrics
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

ORIGIN = "https://shop.example"


class Thing(BaseModel):
    size: int


class Reader:
    """A dependency of a dependency asks for the session."""

    def __init__(self, session: Read) -> None:
        self.session = session


def with_routes(app: FastAPI, log: list[str]) -> FastAPI:
    async def before() -> None:
        log.append("dependency")

    first = [Depends(before)]

    @app.post("/write", dependencies=first)
    async def write(thing: Thing, session: Write) -> None: ...

    @app.get("/read", dependencies=first)
    async def read(reader: Annotated[Reader, Depends()]) -> None: ...

    @app.get("/export", dependencies=first)
    async def export(rows: Export) -> None: ...

    @app.post("/plain", dependencies=first)
    async def plain(thing: Thing) -> str:
        return "done"

    return app


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture
async def full(
    settings: Settings, serve: Any, log: list[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[AsyncClient, FairPool]]:
    """A service whose connections are all in use, by a queue of a hundred seconds."""
    cors = Middleware(CORSMiddleware, allow_origins=[ORIGIN])
    monkeypatch.setattr(api, "MIDDLEWARE", [cors])
    # The log of the second before does not count.
    monkeypatch.setattr(metrics, "REJECTED_LOG_SECONDS", 0.01)
    monkeypatch.setattr(overload, "HOLD_SECONDS", (0, 0))
    small = settings.model_copy(
        update={"database_pool_size": 1, "database_max_overflow": 0}
    )
    opened: list[Database] = []

    @asynccontextmanager
    async def remember(settings: Settings) -> AsyncIterator[Any]:
        async with opening(settings) as database:
            opened.append(database)
            yield database

    opening = main.open_database_checked
    monkeypatch.setattr(main, "open_database_checked", remember)
    app = with_routes(main.create_app(small), log)
    async with serve(app) as client, AsyncExitStack() as held:
        (database,) = opened
        pool = database.engine.pool
        assert isinstance(pool, FairPool)
        await held.enter_async_context(database.engine.connect())
        monkeypatch.setattr(pool.gate, "predicted_wait", lambda _: 100.0)
        yield client, pool


def is_rejected(answer: Response) -> bool:
    problem = answer.json()
    return (
        answer.status_code == 503
        and answer.headers["content-type"] == "application/problem+json"
        and problem["type"] == "urn:problem:busy"
        and answer.headers["x-request-id"] == problem["request_id"]
        and answer.headers["content-length"] == str(len(answer.content))
        and 1 <= int(answer.headers["retry-after"]) <= MAX_RETRY_SECONDS
    )


def problems() -> float:
    return REGISTRY.get_sample_value("http_problems_total", {"type": "busy"}) or 0


async def test_rejected_before_body_and_dependencies(
    full: tuple[AsyncClient, FairPool], log: list[str]
) -> None:
    client, _ = full

    async def endless() -> AsyncIterator[bytes]:
        log.append("body")
        await asyncio.Event().wait()
        yield b""

    before = problems()
    headers = {"Origin": ORIGIN, "Content-Length": "9", "X-Request-ID": "abc"}
    async with asyncio.timeout(5):
        written = await client.post("/write", content=endless(), headers=headers)
    read, exported = await client.get("/read"), await client.get("/export")
    for observer in OBSERVERS:
        if isinstance(observer, RequestMetrics):
            observer.export()

    assert problems() == before + 3
    assert all(map(is_rejected, (written, read, exported)))
    assert written.headers["x-request-id"] == "abc"
    assert written.headers["access-control-allow-origin"] == ORIGIN
    assert log == []


async def test_document_is_that_of_a_rejected_checkout(
    full: tuple[AsyncClient, FairPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, pool = full
    early = await client.get("/read")
    monkeypatch.setattr(pool, "excess_wait", lambda: 0.0)
    late = await client.post("/orders", json={})

    assert late.status_code == 422  # a body that is read
    late = await client.get("/orders")
    own = ("request_id", "instance")
    documents = [
        {key: value for key, value in answer.json().items() if key not in own}
        for answer in (early, late)
    ]
    assert documents[0] == documents[1]
    assert early.headers.keys() == late.headers.keys()


async def test_rejected_checkout_predicts_the_wait_as_well(
    full: tuple[AsyncClient, FairPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler runs, as when the queue has grown since the route was known."""
    client, pool = full
    monkeypatch.setattr(pool, "excess_wait", lambda: 0.0)
    answers = [await client.get("/orders") for _ in range(5)]

    assert all(map(is_rejected, answers))
    assert max(int(answer.headers["retry-after"]) for answer in answers) > 1


async def test_routes_without_a_session_go_on(
    full: tuple[AsyncClient, FairPool], log: list[str]
) -> None:
    client, _ = full
    statuses = [
        (await client.get("/livez")).status_code,
        (await client.get("http://test:9808/metrics")).status_code,
        (await client.post("/plain", json={"size": 1})).status_code,
        (await client.get("/nowhere")).status_code,
        (await client.get("/write")).status_code,
    ]

    assert statuses == [200, 200, 200, 404, 405]
    assert log == ["dependency"]


async def test_short_queue_and_free_connection_reject_no_request(
    full: tuple[AsyncClient, FairPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, pool = full
    monkeypatch.setattr(pool.gate, "predicted_wait", lambda seconds: seconds)
    assert (await client.post("/write", json={"size": 1})).status_code == 200
    monkeypatch.setattr(pool.gate, "predicted_wait", lambda _: 100.0)
    assert (await client.post("/write", json={"size": 1})).status_code == 503
    monkeypatch.setattr(pool.gate, "free", 1)
    assert (await client.post("/write", json={"size": 1})).status_code == 200


async def test_rejections_are_counted_in_one_line(
    full: tuple[AsyncClient, FairPool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    client, pool = full

    def refused() -> float:
        labels = {"pool": "primary"}
        return REGISTRY.get_sample_value("database_pool_refused_total", labels) or 0

    before = refused()
    with caplog.at_level(logging.INFO, logger="shop"):
        for _ in range(50):
            assert is_rejected(await client.get("/read"))
        async with asyncio.timeout(5):
            while pool.rejected:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert refused() == before + 50
    lines = [each for each in caplog.records if each.name.startswith("shop")]
    assert {each.levelname for each in lines} == {"WARNING"}
    assert sum(each.rejected for each in lines) == 50  # type: ignore[attr-defined]
    assert len(lines) < 50


async def test_answers_of_a_bounded_number_of_clients_are_held(
    full: tuple[AsyncClient, FairPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, pool = full
    monkeypatch.setattr(overload, "HOLD_SECONDS", (1000, 1000))
    monkeypatch.setattr(overload, "MAX_HELD", 1)
    monkeypatch.setattr(metrics, "REJECTED_LOG_SECONDS", 1000)
    before = pool.rejected
    held = asyncio.create_task(client.get("/read"))
    async with asyncio.timeout(5):
        while pool.rejected == before:  # noqa: ASYNC110
            await asyncio.sleep(0)
        answers = await client.get("/read"), await client.get("/read")

    assert all(map(is_rejected, answers))
    assert not held.done()
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    assert (await client.get("/livez")).status_code == 200


def test_clients_do_not_come_back_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(wait: float) -> set[int]:
        return {retry_after(wait) for _ in range(500)}

    assert seconds(0.1) == {1}
    assert min(seconds(4)) == 1
    assert max(seconds(4)) in (8, 9)
    assert len(seconds(4)) >= 8
    assert max(seconds(1000)) == MAX_RETRY_SECONDS
