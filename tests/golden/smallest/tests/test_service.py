"""What each request relies on: commits, error answers, health probes, the log."""

import json
import logging.config
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from typing import Annotated, Any, get_args

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from httpx2 import AsyncClient, Response
from pydantic import BaseModel
from sqlalchemy import column, insert, select, table, text

from smallest import main
from smallest.db import Database, Export, Read, Snapshot, Write
from smallest.settings import Settings
from smallest.web import LOG_STREAM
from smallest.web.logs import logging_config

PROBES = table("probes", column("id"))
# What FastAPI calls for the kinds that hold a connection.
HOLDERS = {get_args(kind)[1].dependency for kind in (Snapshot, Write, Export)}


class Thing(BaseModel):
    size: int


@pytest.fixture
async def probes(database: Database) -> AsyncIterator[None]:
    """A table of these tests, which no migration knows."""
    async with database.write() as session:
        await session.execute(text("CREATE TABLE probes (id INTEGER PRIMARY KEY)"))
    yield
    async with database.write() as session:
        await session.execute(text("DROP TABLE probes"))


async def rows(database: Database) -> list[int]:
    async with database.read() as session:
        return list(await session.scalars(select(PROBES.c.id)))


def is_problem(answer: Response, status: int) -> bool:
    return (
        answer.status_code == answer.json()["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["x-request-id"] == answer.json()["request_id"]
    )


@pytest.mark.usefixtures("probes")
async def test_write_is_there_when_the_answer_comes(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 200
    assert await rows(database) == [1]


@pytest.mark.usefixtures("probes")
@pytest.mark.parametrize(
    ("error", "status"), [(HTTPException(402), 402), (ZeroDivisionError("secret"), 500)]
)
async def test_error_after_a_write_leaves_no_row(
    app: FastAPI, serve: Any, database: Database, error: Exception, status: int
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))
        raise error

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert is_problem(answer, status)
    assert "secret" not in answer.text
    assert await rows(database) == []


def greedy(app: FastAPI) -> set[str]:
    """Routes that hold two connections: a full pool would wait for itself."""

    def held(dependant: Dependant) -> Iterator[object]:
        if dependant.call in HOLDERS:
            yield dependant.call if dependant.use_cache else dependant
        for inner in dependant.dependencies:
            yield from held(inner)

    return {
        str(route.path)
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute)
        and len({*map(id, held(route.dependant))}) > 1
    }


def test_no_route_holds_two_connections(app: FastAPI) -> None:
    assert greedy(app) == set()


def test_route_that_holds_two_connections_is_found(app: FastAPI) -> None:
    async def user(session: Write) -> None: ...

    async def both(export: Export, user: Annotated[None, Depends(user)]) -> None: ...

    async def shared(session: Write, user: Annotated[None, Depends(user)]) -> None: ...

    async def brief(session: Write, other: Read) -> None: ...

    async def state(session: Write, other: Snapshot) -> None: ...

    inner, outer = APIRouter(), APIRouter()
    for endpoint in (both, shared, brief, state):
        inner.add_api_route(f"/{endpoint.__name__}", endpoint)
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")

    assert greedy(app) == {"/outer/inner/both", "/outer/inner/state"}


async def test_livez_and_readyz(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first connect may take long.
    monkeypatch.setattr("smallest.web.health.PROBE_SECONDS", 10)
    alive, ready = await client.get("/livez"), await client.get("/readyz")

    assert alive.json() == {"status": "alive"}
    assert ready.json() == {"status": "ready", "database": "reachable"}


async def test_unreachable_database_is_503(unreachable: Settings, serve: Any) -> None:
    app = main.create_app(unreachable)

    @app.get("/probe")
    async def probe(session: Read) -> None:
        await session.execute(select(1))

    async with serve(app) as client:
        alive, ready = await client.get("/livez"), await client.get("/readyz")
        answer = await client.get("/probe")

    assert alive.status_code == 200
    assert is_problem(ready, 503)
    assert is_problem(answer, 503)
    assert answer.json()["type"] == "urn:problem:unavailable"
    assert answer.headers["retry-after"] == "1"


async def test_wrong_paths_and_methods_are_problems(client: AsyncClient) -> None:
    assert is_problem(await client.get("/nowhere"), 404)
    assert is_problem(await client.post("/livez"), 405)


async def test_wrong_body_is_a_problem_without_its_value(
    app: FastAPI, serve: Any
) -> None:
    @app.post("/probe")
    async def probe(thing: Thing) -> None: ...

    async with serve(app) as client:
        answer = await client.post("/probe", json={"size": "hunter2"})

    assert is_problem(answer, 422)
    assert answer.json()["errors"][0]["at"] == "body.size"
    assert "hunter2" not in answer.text


async def test_log_is_json_with_the_id_of_the_request(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = StringIO()
    monkeypatch.setattr(f"sys.{LOG_STREAM}", output)
    logging.config.dictConfig(logging_config("INFO"))
    await client.get("/nowhere", headers={"X-Request-ID": "abc"})

    line = json.loads(output.getvalue().splitlines()[0])
    assert line["message"] == "GET /nowhere 404"
    assert line["request_id"] == "abc"
