"""Health, problem documents, limits and logs."""

import asyncio
import json
import logging.config
from collections.abc import AsyncIterator
from io import StringIO
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from httpx import AsyncClient, Response
from pydantic import BaseModel
from sqlalchemy import select

from largest import main
from largest.db.faults import OutcomeUnknown
from largest.db.session import Read
from largest.logs import logging_config
from largest.settings import Settings


class Thing(BaseModel):
    size: int


def is_problem(answer: Response, status: int) -> bool:
    return (
        answer.status_code == answer.json()["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["x-request-id"] == answer.json()["request_id"]
    )


async def test_livez_and_readyz(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first connect may take long.
    monkeypatch.setattr("largest.probe.PROBE_SECONDS", 10)
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


async def test_wrong_body_is_told_without_its_value(app: FastAPI, serve: Any) -> None:
    @app.post("/probe")
    async def probe(thing: Thing) -> None: ...

    async with serve(app) as client:
        answer = await client.post("/probe", json={"size": "hunter2"})

    assert is_problem(answer, 422)
    assert answer.json()["errors"][0]["at"] == "body.size"
    assert "hunter2" not in answer.text


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_over_the_limit_is_413(
    app: FastAPI, serve: Any, settings: Settings, chunked: bool
) -> None:
    body = b" " * (settings.max_body_bytes + 1)

    async def chunks() -> Any:
        yield body

    @app.post("/probe")
    async def probe(thing: Thing) -> None: ...

    async with serve(app) as client:
        answer = await client.post("/probe", content=chunks() if chunked else body)

    assert is_problem(answer, 413)


async def test_declared_body_over_the_limit_is_not_waited_for(
    app: FastAPI, serve: Any, settings: Settings
) -> None:
    @app.post("/probe")
    async def probe(thing: Thing) -> None: ...

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    length = {"Content-Length": str(settings.max_body_bytes + 1)}
    async with serve(app) as client, asyncio.timeout(5):
        answer = await client.post("/probe", content=nothing(), headers=length)

    assert is_problem(answer, 413)


@pytest.mark.parametrize("status", [402, 499])
async def test_http_error_is_a_problem_with_its_detail(
    app: FastAPI, serve: Any, status: int
) -> None:
    @app.get("/probe")
    async def probe() -> None:
        raise HTTPException(status, {"code": "E1"})

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert is_problem(answer, status)
    assert answer.json()["detail"] == {"code": "E1"}


async def test_http_error_without_a_body_has_none(app: FastAPI, serve: Any) -> None:
    @app.get("/probe")
    async def probe() -> None:
        raise HTTPException(304)

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert (answer.status_code, answer.content) == (304, b"")


@pytest.mark.parametrize(
    ("error", "status"),
    [(OutcomeUnknown("lost"), 504), (ZeroDivisionError("secret"), 500)],
)
async def test_error_is_a_problem_that_tells_no_detail(
    app: FastAPI, serve: Any, error: Exception, status: int
) -> None:
    @app.get("/probe")
    async def probe() -> None:
        raise error

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert is_problem(answer, status)
    assert str(error) not in answer.text


async def test_log_is_json_with_the_id_of_the_request(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = StringIO()
    monkeypatch.setattr("sys.stderr", output)
    logging.config.dictConfig(logging_config("INFO"))
    await client.get("/livez", headers={"X-Request-ID": "abc"})

    line = json.loads(output.getvalue().splitlines()[0])
    assert line["message"] == "GET /livez 200"
    assert line["request_id"] == "abc"
