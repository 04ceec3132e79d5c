"""Uploads, streamed answers, WebSockets, HEAD, and the client for tests of FastAPI."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from httpx2 import AsyncClient
from shop import main
from shop.db import Database, Read
from shop.db.errors import OperationTimeout
from shop.models import Order
from shop.settings import Settings
from sqlalchemy import insert, literal, select
from starlette.websockets import WebSocketDisconnect


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probe_answers_head_without_a_body(
    client: AsyncClient, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shop.web.health.PROBE_SECONDS", 10)
    answer = await client.head(path)

    assert answer.status_code == 200


def test_test_client_opens_and_closes_the_service(settings: Settings) -> None:
    """fastapi.testclient runs the lifespan in a thread of its own."""
    app = main.create_app(settings)

    @app.get("/probe")
    async def probe(session: Read) -> int | None:
        return await session.scalar(select(1))

    with TestClient(app) as client:
        assert client.get("/probe").json() == 1


def test_websocket_has_sessions(settings: Settings) -> None:
    """One for each message: a session for the whole connection would keep a
    connection of the pool for as long.
    """
    app = main.create_app(settings)

    @app.websocket("/probe")
    async def probe(socket: WebSocket, once: Read) -> None:
        await socket.accept()
        async for number in socket.iter_text():
            query = select(literal(int(number)))
            async with socket.state.database.write() as session:
                written = await session.scalar(query)
            await socket.send_json([written, await once.scalar(query)])

    with TestClient(app) as client, client.websocket_connect("/probe") as socket:
        for number in (1, 2):
            socket.send_text(str(number))
            assert socket.receive_json() == [number, number]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(OperationTimeout("late"), "timeout"), (ZeroDivisionError("secret"), "")],
)
def test_websocket_whose_handler_fails_is_closed_with_a_code(
    settings: Settings, caplog: pytest.LogCaptureFixture, error: Exception, reason: str
) -> None:
    app = main.create_app(settings)

    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()  # ends with the client as well
        raise error

    logging.getLogger().addHandler(caplog.handler)
    with TestClient(app) as client:
        caplog.clear()
        with client.websocket_connect("/probe"):
            pass
        assert not [each for each in caplog.records if each.exc_info]
        with client.websocket_connect("/probe") as socket:
            socket.send_text("go")
            with pytest.raises(WebSocketDisconnect) as caught:
                socket.receive_text()

    assert (caught.value.code, caught.value.reason) == (1011, reason)
    assert len([each for each in caplog.records if each.exc_info]) == (not reason)


@pytest.mark.parametrize(
    ("error", "logged"),
    [(None, 0), (OperationTimeout("late"), 0), (ZeroDivisionError("secret"), 1)],
)
async def test_websocket_whose_client_leaves_before_the_answer_is_no_error(
    app: FastAPI, caplog: pytest.LogCaptureFixture, error: Exception | None, logged: int
) -> None:
    """The server then raises an OSError for each message that is sent."""

    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        if error:
            raise error
        await socket.accept()

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(_: object) -> None:
        raise OSError

    scope = {"type": "websocket", "path": "/probe", "headers": [(b"host", b"test")]}
    scope |= {"query_string": b"", "scheme": "ws", "root_path": "", "extensions": {}}
    scope |= {"client": ("127.0.0.1", 1), "server": ("test", 80), "subprotocols": []}
    logging.getLogger().addHandler(caplog.handler)
    caplog.clear()
    await app(scope, receive, send)

    assert len([each for each in caplog.records if each.exc_info]) == logged


@pytest.mark.parametrize(
    ("message", "code"),
    [("{", 1003), ("[" * 100_000, 1003), (b"{}", 1003), ("{}", 1011)],
)
def test_websocket_message_that_cannot_be_read_is_no_error_of_the_service(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    message: str | bytes,
    code: int,
) -> None:
    app = main.create_app(settings)

    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        await socket.accept()
        (await socket.receive_json())["size"]  # a bug: there may be none

    logging.getLogger().addHandler(caplog.handler)
    with TestClient(app) as client, client.websocket_connect("/probe") as socket:
        caplog.clear()
        send = socket.send_text if isinstance(message, str) else socket.send_bytes
        send(message)  # type: ignore[arg-type]
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()

    assert caught.value.code == code
    assert len([each for each in caplog.records if each.exc_info]) == (code == 1011)


@pytest.mark.parametrize(("status", "code"), [(403, 1008), (503, 1011)])
def test_http_exception_closes_a_websocket_with_its_detail(
    settings: Settings, caplog: pytest.LogCaptureFixture, status: int, code: int
) -> None:
    app = main.create_app(settings)

    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        await socket.accept()
        raise HTTPException(status, "é" * 100)

    logging.getLogger().addHandler(caplog.handler)
    with TestClient(app) as client, client.websocket_connect("/probe") as socket:
        caplog.clear()
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_text()

    assert (caught.value.code, caught.value.reason) == (code, "é" * 61)
    assert not [each for each in caplog.records if each.exc_info]


def test_websocket_to_a_host_that_is_not_allowed_is_refused(settings: Settings) -> None:
    changes = {"allowed_hosts": ("api.example.com",)}
    app = main.create_app(settings.model_copy(update=changes))

    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        await socket.accept()

    with TestClient(app) as client:
        with pytest.raises(WebSocketDisconnect):
            client.websocket_connect("/probe").__enter__()
        there = {"Host": "api.example.com"}
        with client.websocket_connect("/probe", headers=there):
            pass


async def test_streamed_answer_opens_a_session_of_its_own(
    app: FastAPI, serve: Any, database: Database
) -> None:
    """The session of the handler has ended when the stream begins."""

    async def numbers(database: Database) -> AsyncIterator[str]:
        async with database.read() as session:
            for number in range(3):
                yield f"{await session.scalar(select(literal(number)))}\n"

    @app.get("/probe")
    async def probe(request: Request) -> StreamingResponse:
        return StreamingResponse(numbers(request.state.database))

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert answer.text == "0\n1\n2\n"


@pytest.mark.parametrize("path", ["/task", "/stream"])
async def test_fault_after_the_answer_has_begun_is_logged_without_values(
    app: FastAPI,
    serve: Any,
    database: Database,
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    async def conflict() -> None:
        new = insert(Order).values(customer="ada", idempotency_key="canary")
        async with database.write() as session:
            for _ in range(2):
                await session.execute(new)

    async def lines() -> AsyncIterator[str]:
        yield "begun"
        await conflict()

    @app.get("/task")
    async def task(tasks: BackgroundTasks) -> str:
        tasks.add_task(conflict)
        return "begun"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(lines())

    logging.getLogger().addHandler(caplog.handler)
    caplog.clear()
    async with serve(app) as client:
        answer = await client.get(path)

    # Of a stream the server gets another error: it is cut.
    assert (answer.status_code, answer.text.strip('"')) == (200, "begun")
    (line,) = (each for each in caplog.records if each.levelname == "ERROR")
    assert line.getMessage().startswith("conflict after the answer has begun: ")
    assert not line.exc_info
    assert "canary" not in caplog.text


async def test_upload_has_the_limit_of_its_route(
    app: FastAPI, serve: Any, settings: Settings
) -> None:
    limit = settings.max_body_bytes + 1000

    @app.post("/probe", max_body_size=limit)
    async def probe(request: Request) -> int:
        return sum([len(chunk) async for chunk in request.stream()])

    async with serve(app) as client:
        whole = await client.post("/probe", content=b"x" * limit)
        larger = await client.post("/probe", content=b"x" * (limit + 1))

    assert (whole.status_code, whole.json()) == (200, limit)
    assert larger.status_code == larger.json()["status"] == 413
