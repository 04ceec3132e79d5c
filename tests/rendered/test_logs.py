"""Lines of the log: one JSON object each, with the facts as fields."""

import json
import logging
import re
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from io import StringIO
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, HTTPException, WebSocket
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from httpx2 import AsyncClient
from shop import main
from shop.db.errors import OperationTimeout
from shop.web import LOG_LEVEL, LOG_STREAM
from shop.web.logs import AnswerCut, JsonHandler, configure_logging

Lines = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def lines(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """The lines of a logger; the application has configured the log before."""
    output = StringIO()
    monkeypatch.setattr(f"sys.{LOG_STREAM}", output)
    monkeypatch.setattr(logging.root, "handlers", [])

    def lines(name: str = "shop.web.middleware") -> list[dict[str, Any]]:
        written = [json.loads(line) for line in output.getvalue().splitlines()]
        return [line for line in written if line["logger"] == name]

    configure_logging("INFO")
    yield lines
    logging.captureWarnings(capture=False)


async def test_request_is_a_line_with_fields(
    app: FastAPI, serve: Any, lines: Lines
) -> None:
    inner, outer = APIRouter(prefix="/things"), APIRouter()

    @inner.get("/{thing}")
    async def probe(thing: str) -> None:
        raise HTTPException(402)

    outer.include_router(inner, prefix="/v1")
    app.include_router(outer)
    async with serve(app) as client:
        headers = {"X-Request-ID": "abc"}
        await client.get('/v1/things/a"b', headers=headers)
        await client.get("/nowhere")

    paid, unmatched = lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", paid.pop("time"))
    assert paid.pop("duration_ms") >= 0
    assert paid == {
        LOG_LEVEL: "INFO",
        "logger": "shop.web.middleware",
        "message": 'GET /v1/things/a"b 402',
        "request_id": "abc",
        "method": "GET",
        "route": "/v1/things/{thing}",
        "status": 402,
        "client": "127.0.0.1",
    }
    assert unmatched["route"] == "unmatched"
    assert unmatched["request_id"] != "abc"


async def test_probes_have_a_line_if_they_fail(
    unreachable: Any,
    serve: Any,
    lines: Lines,
    client: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scrapes = ["http://test:9808/metrics"] if find_spec("shop.web.metrics") else []
    for path in ("/livez", *scrapes, "/livez"):
        await client.get(path)
    assert lines() == []
    logging.getLogger("shop").setLevel("DEBUG")
    await client.get("/livez")
    logging.getLogger("shop").setLevel("NOTSET")
    monkeypatch.setattr(main, "configure_logging", lambda _: None)
    async with serve(main.create_app(unreachable)) as other:
        await other.get("/readyz")

    debug, failed = lines()
    assert (debug[LOG_LEVEL], debug["message"]) == ("DEBUG", "GET /livez 200")
    assert (failed[LOG_LEVEL], failed["message"]) == ("INFO", "GET /readyz 503")


async def test_problem_of_the_database_is_a_field(
    app: FastAPI, serve: Any, lines: Lines
) -> None:
    @app.get("/late")
    async def late() -> None:
        raise OperationTimeout("too late")

    @app.get("/cut")
    async def cut() -> StreamingResponse:
        async def rows() -> AsyncIterator[str]:
            yield "one"
            raise OperationTimeout("too late")

        return StreamingResponse(rows())

    async with serve(app) as client:
        await client.get("/late")
        await client.get("/cut")

    (failed,) = lines("shop.web.errors.handlers")
    (broken,) = lines("shop.web.errors.unhandled")
    assert failed["problem"] == broken["problem"] == "timeout"
    # What the client has got, and whether it was not all.
    assert [(line["status"], line.get("cut")) for line in lines()] == [
        (503, None),
        (200, True),
    ]


def test_line_of_the_server_has_neither_a_query_nor_a_second_traceback(
    lines: Lines,
) -> None:
    server = logging.getLogger("uvicorn.error")
    for text, *others in (["[accepted]"], ["403"], ["%d", 401]):
        server.info(f'%s - "WebSocket %s" {text}', "::1", "/ws?token=a", *others)
    server.error("Exception in ASGI application\n", exc_info=AnswerCut("timeout"))
    server.error("Exception in ASGI application\n", exc_info=ValueError())

    *handshakes, last = lines("uvicorn.error")
    assert [line["message"] for line in handshakes] == [
        f'::1 - "WebSocket /ws" {end}' for end in ("[accepted]", "403", "401")
    ]
    assert "ValueError" in last["exception"]


def test_lines_of_a_websocket_have_its_id(app: FastAPI, lines: Lines) -> None:
    @app.websocket("/probe")
    async def probe(socket: WebSocket) -> None:
        await socket.accept()
        logging.getLogger("any").warning("in a websocket")
        await socket.close()

    headers = {"X-Request-ID": "abc"}
    with TestClient(app) as client, client.websocket_connect("/probe", headers=headers):
        pass

    (line,) = lines("any")
    assert line["request_id"] == "abc"


async def test_every_handler_gets_the_lines_of_requests(
    client: AsyncClient, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record as any other, as soon as there is another handler."""
    ours = [each for each in logging.root.handlers if isinstance(each, JsonHandler)]
    monkeypatch.setattr(logging.root, "handlers", ours)
    records: list[logging.LogRecord] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name == "shop.web.middleware":
                records.append(record)

    with monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("shop.web.middleware"), "makeRecord", None)
        await client.get("/alone")
    logging.root.addHandler(Handler())
    await client.get("/together")

    alone, together = lines()
    assert [record.getMessage() for record in records] == ["GET /together 404"]
    assert vars(records[0])["route"] == "unmatched"
    assert alone.keys() == together.keys()
    assert alone[LOG_LEVEL] == together[LOG_LEVEL] == "INFO"
    assert alone["message"] == "GET /alone 404"


def test_error_and_extra_are_fields_of_one_line(lines: Lines) -> None:
    try:
        int("first\nsecond")
    except ValueError:
        logging.getLogger("any").exception("failed", extra={"pool": "p", "time": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    (line,) = lines("any")
    assert (line["message"], line["pool"]) == ("failed", "p")
    assert line["time"] != 1
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    logging.getLogger("keys").warning("done", extra={"counts": {(1, 2): 3}})
    (line,) = lines("keys")
    assert (line["message"], line["counts"]) == ("done", "{(1, 2): 3}")
    (warning,) = lines("py.warnings")
    assert "old" in warning["message"]
