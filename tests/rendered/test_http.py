"""Problem documents of every error, and the limit for the body of a request."""

import asyncio
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request
from httpx2 import ASGITransport, AsyncClient, Response
from pydantic import BaseModel
from shop import api, features, main
from shop.db import Database
from shop.db.errors import CommitOutcomeUnknown
from shop.settings import Settings
from shop.web import health
from sqlalchemy import select
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import StreamingResponse


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


@pytest.mark.parametrize("limit", [None, 10])
async def test_declared_body_over_the_limit_cuts_no_stream(
    app: FastAPI, serve: Any, settings: Settings, limit: int | None
) -> None:
    """A stream listens for the end of its client, and would read the body meanwhile."""

    @app.get("/probe", max_body_size=limit)
    async def probe() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield "begun"
            await asyncio.sleep(0)
            yield "ended"

        return StreamingResponse(lines())

    limit = limit or settings.max_body_bytes
    async with serve(app) as client:
        longer = await client.request("GET", "/probe", content=b" " * (limit + 1))
        longest = await client.request("GET", "/probe", content=b" " * limit)

    assert is_problem(longer, 413)
    assert longest.text == "begunended"


async def test_parameter_that_its_convertor_rejects_is_404(
    app: FastAPI, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/probe/{number:int}")
    async def probe(number: int) -> int:
        return number

    caplog.set_level(logging.INFO)
    async with serve(app) as client:
        longest = await client.get(f"/probe/{'9' * 4300}")
        longer = await client.get(f"/probe/{'9' * 4301}")

    assert longest.status_code == 200
    assert is_problem(longer, 404)
    assert "999 404" in caplog.text


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


async def test_detail_that_is_no_unicode_has_its_status(
    app: FastAPI, serve: Any
) -> None:
    """As a name that the client has sent, in a sentence of the handler."""

    @app.get("/probe")
    async def probe() -> None:
        raise HTTPException(404, "There is no \ud800.")

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert is_problem(answer, 404)
    assert answer.json()["detail"] == "There is no \ud800."


class Raises:
    """A middleware of the owner with a bug."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/middleware":
            raise ZeroDivisionError
        await self.app(scope, receive, send)


@pytest.fixture
def faulty(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    cors = Middleware(CORSMiddleware, allow_origins=["*"])
    monkeypatch.setattr(api, "MIDDLEWARE", [cors, Middleware(Raises)])
    app = main.create_app(settings)

    @app.get("/handler")
    async def handler() -> None:
        raise ZeroDivisionError

    def fail() -> None:
        raise ZeroDivisionError

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> str:
        tasks.add_task(fail)
        return "done"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            yield "begun"
            raise ZeroDivisionError

        return StreamingResponse(lines())

    return app


@pytest.mark.parametrize("path", ["/handler", "/task"])
async def test_unhandled_error_has_the_headers_of_other_answers(
    faulty: FastAPI,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    transport = ASGITransport(faulty)  # an error that reaches the server is raised
    origin = {"Origin": "https://example.com"}
    caplog.clear()
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get(path, headers=origin)

    assert is_problem(answer, 500) if path == "/handler" else answer.is_success
    assert "access-control-allow-origin" in answer.headers
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_error_within_an_answer_reaches_the_server(faulty: FastAPI) -> None:
    transport = ASGITransport(faulty)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/stream")


async def test_unhandled_error_leaves_the_connection_open(
    faulty: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    config = uvicorn.Config(faulty, log_config=None, lifespan="off")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())

        async def get(path: str) -> bytes:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if length := head.lower().partition(b"content-length: ")[2].split():
                await reader.readexactly(int(length[0]))
            return head.split()[1]

        paths = ("/handler", "/middleware", "/task", "/handler", "/stream")
        statuses = [await get(path) for path in paths]
        rest = await reader.read()
        writer.close()
        server.should_exit = True
        await serving

    assert statuses == [b"500", b"500", b"200", b"500", b"200"]
    assert not rest.endswith(b"0\r\n\r\n"), "its reader sees that it is not whole"


class ReadsBody:
    """A middleware of the owner, as of callbacks that are signed."""

    raised: Exception | None = None

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await Request(scope, receive).body()
            if self.raised:
                raise self.raised
        await self.app(scope, receive, send)


@pytest.fixture
def signed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setattr(api, "MIDDLEWARE", [Middleware(ReadsBody)])
    return main.create_app(settings)


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (HTTPException(401, "not signed"), 401),
        (PoolTimeoutError("no connection"), 503),
        (CommitOutcomeUnknown("lost"), 504),
        (ZeroDivisionError("secret"), 500),
    ],
)
async def test_error_of_a_middleware_has_the_answer_of_its_handler(
    signed: FastAPI,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    status: int,
) -> None:
    monkeypatch.setattr(ReadsBody, "raised", raised)
    transport = ASGITransport(signed)  # an error that reaches the server is raised
    caplog.clear()
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/orders")

    assert is_problem(answer, status)
    assert "secret" not in answer.text
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == (status == 500)


async def test_handler_that_fails_for_a_middleware_is_500(
    signed: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Request, error: Exception) -> None:
        raise ZeroDivisionError from error

    monkeypatch.setattr(ReadsBody, "raised", HTTPException(401))
    signed.exception_handlers[HTTPException] = fail
    caplog.clear()
    async with AsyncClient(
        transport=ASGITransport(signed), base_url="http://test"
    ) as client:
        answer = await client.post("/orders")

    assert is_problem(answer, 500)
    assert [each.message for each in caplog.records if each.exc_info] == [
        "unhandled ZeroDivisionError"
    ]


async def test_body_over_the_limit_that_a_middleware_reads_is_413(
    signed: FastAPI, settings: Settings
) -> None:
    transport = ASGITransport(signed)
    body = b" " * (settings.max_body_bytes + 1)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/orders", content=body)

    assert is_problem(answer, 413)


async def test_method_not_allowed_names_those_of_all_routes(app: FastAPI) -> None:
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://test") as client:
        orders = await client.put("/orders")
        probe = await client.post("/livez")

    assert is_problem(orders, 405)
    assert orders.headers["allow"] == "GET, POST"
    assert probe.headers["allow"] == "GET, HEAD"


async def test_readiness_asks_what_is_the_service_s_own(
    settings: Settings, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded, and as the database: needed once, and then a field of the body."""
    broken = {"search", "silent"}

    async def search() -> None:
        if "search" in broken:
            raise ConnectionError("search is away")

    async def silent() -> None:
        if "silent" in broken:
            await asyncio.Event().wait()

    @asynccontextmanager
    async def resources(_: Settings) -> AsyncIterator[dict[str, Any]]:
        yield {"readiness_checks": {"search": search, "silent": silent}}

    monkeypatch.setattr(api, "resources", resources)
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.2)
    async with serve(main.create_app(settings)) as client:

        async def ask(status: int, **states: str) -> dict[str, Any]:
            async with asyncio.timeout(15):
                while True:
                    answer = await client.get("/readyz")
                    found: dict[str, Any] = answer.json()
                    asked = {"database": found["database"], **found["checks"]}
                    if states == asked:
                        assert answer.status_code == status
                        return found
                    await asyncio.sleep(0.02)

        reachable = {"database": "reachable"}
        found = await ask(503, search="failing", silent="timeout", **reachable)
        assert found["detail"] == "No answer yet: search, silent."
        broken.remove("search")
        found = await ask(503, search="reachable", silent="timeout", **reachable)
        assert found["detail"] == "No answer yet: silent."
        broken.clear()
        await ask(200, search="reachable", silent="reachable", **reachable)
        broken.add("search")
        await ask(200, search="failing", silent="reachable", **reachable)


EXAMPLE: dict[str, Any] = {
    "Any": Any,
    "Callable": Callable,
    "Request": Request,
    "Response": Any,
    "problem": features.problem,
}
README = (Path(__file__).parents[1] / "README.md").read_text()
exec(  # noqa: S102
    re.findall(r"```python\n(class OutOfStock.*?)```", README, re.DOTALL)[0], EXAMPLE
)
OutOfStock, HANDLERS = EXAMPLE["OutOfStock"], EXAMPLE["EXCEPTION_HANDLERS"]


@pytest.fixture
async def own(settings: Settings, serve: Any) -> Any:
    """An app with a handler of its own, and one that it mounts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "EXCEPTION_HANDLERS", HANDLERS)
        app = main.create_app(settings)
    sub = FastAPI(exception_handlers={**features.EXCEPTION_HANDLERS, **HANDLERS})
    app.mount("/sub", sub)

    async def fail(error: Exception) -> None:
        raise error

    async def alone(kind: str) -> None:
        await fail(ERRORS[kind][0])

    async def in_tasks(kind: str) -> None:
        async with asyncio.TaskGroup() as group:
            for error in ERRORS[kind]:
                group.create_task(fail(error))

    for each in (app, sub):
        each.get("/alone/{kind}")(alone)
        each.get("/in-tasks/{kind}")(in_tasks)
    async with serve(app) as client:
        yield client


ERRORS: dict[str, list[Exception]] = {
    "own": [OutOfStock("None left.")],
    "own-twice": [OutOfStock("None left."), OutOfStock("None left.")],
    "http": [HTTPException(404, "No such order.")],
    "two": [HTTPException(404), OutOfStock()],
    "two-http": [HTTPException(404), HTTPException(500)],
    "bug": [ZeroDivisionError()],
    "bugs": [ExceptionGroup("", [ZeroDivisionError(), HTTPException(404)])],
}


@pytest.mark.parametrize("place", ["", "/sub"])
@pytest.mark.parametrize("path", ["alone/own", "in-tasks/own", "in-tasks/own-twice"])
async def test_exception_of_the_owner_has_the_answer_of_its_handler(
    own: AsyncClient, place: str, path: str
) -> None:
    answer = await own.get(f"{place}/{path}")
    assert is_problem(answer, 409)
    assert answer.json()["detail"] == "None left."


@pytest.mark.parametrize("path", ["/in-tasks/http", "/sub/alone/http"])
async def test_http_exception_has_its_answer(own: AsyncClient, path: str) -> None:
    assert is_problem(await own.get(path), 404)


@pytest.mark.parametrize("kind", ["two", "two-http", "bug", "bugs"])
async def test_group_of_several_kinds_is_500(own: AsyncClient, kind: str) -> None:
    assert is_problem(await own.get(f"/in-tasks/{kind}"), 500)


async def test_api_of_an_older_release_has_no_handlers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(api, "EXCEPTION_HANDLERS")
    assert main.create_app(settings)


async def test_resources_may_take_the_database(
    settings: Settings, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def resources(settings: Settings, database: Database) -> AsyncIterator[Any]:
        async with database.read() as session:
            yield {"found": await session.scalar(select(1))}

    monkeypatch.setattr(api, "resources", resources)
    app = main.create_app(settings)

    @app.get("/found")
    async def found(request: Request) -> Any:
        return request.state.found

    async with serve(app) as client:
        assert (await client.get("/found")).json() == 1
