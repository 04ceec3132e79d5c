"""Problem documents of every error, and the limit for the body of a request."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException
from httpx import Response
from pydantic import BaseModel
from shop.db.errors import CommitOutcomeUnknown
from shop.settings import Settings


class Thing(BaseModel):
    size: int


def is_problem(answer: Response, status: int) -> bool:
    return (
        answer.status_code == answer.json()["status"] == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.headers["x-request-id"] == answer.json()["request_id"]
    )


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
    [(CommitOutcomeUnknown("lost"), 504), (ZeroDivisionError("secret"), 500)],
)
async def test_error_is_a_problem_without_its_detail(
    app: FastAPI, serve: Any, error: Exception, status: int
) -> None:
    @app.get("/probe")
    async def probe() -> None:
        raise error

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert is_problem(answer, status)
    assert str(error) not in answer.text
