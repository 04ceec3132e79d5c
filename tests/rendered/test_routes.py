"""The table of routes: every request is answered as FastAPI's own router answers it."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Form, Request, WebSocket
from fastapi.dependencies import utils
from fastapi.routing import APIRoute
from httpx2 import ASGITransport, AsyncClient, Response
from shop.web.routes import RouteTable
from starlette.responses import PlainTextResponse
from starlette.routing import Match, Mount, Route, Router
from starlette.types import Receive, Scope, Send


class ByHeader(APIRoute):
    """A route class of an owner: it is there for some callers only."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if (b"x-beta", b"1") not in scope["headers"]:
            return Match.NONE, {}
        return super().matches(scope)


def facts(request: Request) -> dict[str, Any]:
    """What a handler can see of its route."""
    scope = request.scope
    context = scope.get("fastapi", {}).get("effective_route_context")
    return {
        "route": scope["route"].path,
        "effective": getattr(context, "path", None),
        "endpoint": scope["endpoint"].__name__,
        "parameters": {key: repr(value) for key, value in scope["path_params"].items()},
        "url": str(request.url_for("item", number=1)),
    }


Facts = Annotated[dict[str, Any], Depends(facts)]


def routers() -> FastAPI:  # noqa: C901
    inner, outer, beta = APIRouter(prefix="/in"), APIRouter(), APIRouter()
    beta.route_class = ByHeader

    @inner.get("/{number:int}", name="item")
    async def item(number: int, facts: Facts) -> Any:
        return {**facts, "number": number}

    @inner.get("/{name}")
    async def named(name: str, facts: Facts) -> Any:
        return facts

    @inner.get("/late")  # behind a parameter that takes it
    async def late(facts: Facts) -> Any:
        return facts

    @inner.post("/{name}")
    async def post(name: str, facts: Facts) -> Any:
        return facts

    @inner.api_route("/both", methods=["PUT", "HEAD"], include_in_schema=False)
    async def both(facts: Facts) -> Any:
        return facts

    @inner.post("/form/{key}")
    async def form(key: UUID, field: Annotated[str, Form()], facts: Facts) -> Any:
        return {**facts, "field": field}

    @beta.get("/beta")
    async def beta_only(facts: Facts) -> Any:
        return facts

    async def plain(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(request.url_for("item", number=1)))

    async def mounted(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.url.path)

    app = FastAPI()
    outer.include_router(inner, prefix="/out")
    outer.include_router(inner, prefix="/twice")
    app.include_router(outer, prefix="/v1")
    app.mount("/files", Router([Route("/{name}", mounted)]))
    app.include_router(APIRouter(routes=[Mount("/m", Router([Route("/", mounted)]))]))
    app.include_router(APIRouter(routes=[Route("/plain", plain)]), prefix="/p")

    @app.get("/files/shadowed")  # behind the mount
    async def shadowed(facts: Facts) -> Any:
        return facts

    @app.get("/direct")
    async def direct(facts: Facts) -> Any:
        return facts

    @app.get("/tree/{path:path}")
    async def tree(path: str, facts: Facts) -> Any:
        return facts

    app.include_router(beta)

    @app.get("/beta")
    async def for_others(facts: Facts) -> Any:
        return facts

    @app.websocket("/direct")
    async def websocket(websocket: WebSocket) -> None: ...

    return app


REQUESTS = [
    *("GET /v1/out/in/7", "GET /v1/twice/in/7", "GET /v1/out/in/seven"),
    *("GET /v1/out/in/late", "POST /v1/out/in/x", "PUT /v1/out/in/both"),
    *("HEAD /v1/out/in/both", "HEAD /direct", "DELETE /v1/out/in/7", "GET /v1/out/in"),
    *("GET /v1/out/in/7/", "GET /v1//out/in/7", "GET /direct/", "GET /direct%0A"),
    *("GET /direct", "POST /direct", "FOO /direct", "OPTIONS /direct", "GET /tree/a/b"),
    *("GET /files/a", "GET /files/shadowed", "GET /m/", "GET /m", "GET /p/plain"),
    *("HEAD /p/plain", "POST /p/plain", "GET /beta", "GET /nowhere", "GET /"),
    *("GET /openapi.json", "GET /docs", "GET /root/direct", "GET /tree/a%2Fb"),
    *("POST /v1/out/in/seven/8", "GET /v1/out/in/form/none"),
]


@pytest.fixture
async def pair(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[AsyncClient, AsyncClient, RouteTable]]:
    """Clients of the same application, without and with the table."""
    # Forms need a library that a service without them does not have.
    monkeypatch.setattr(utils, "ensure_multipart_is_installed", lambda: None)
    app, table = routers(), RouteTable()
    table.read(app)
    async with (
        AsyncClient(
            transport=ASGITransport(routers(), root_path="/root"),
            base_url="http://test",
        ) as one,
        AsyncClient(
            transport=ASGITransport(app, root_path="/root"), base_url="http://test"
        ) as other,
    ):
        yield one, other, table


def seen(answer: Response) -> Any:
    allow = sorted(answer.headers.get("allow", "").split(", "))
    headers = [answer.headers.get(name) for name in ("location", "content-type")]
    return answer.status_code, allow, headers, answer.content


async def test_answers_are_those_of_the_router(
    pair: tuple[AsyncClient, AsyncClient, RouteTable],
) -> None:
    for text in REQUESTS:
        method, path = text.split(" ")
        for headers in ({}, {"X-Beta": "1"}):
            answers = [
                await client.request(method, path, headers=headers)
                for client in pair[:2]
            ]
            assert seen(answers[0]) == seen(answers[1]), text


async def test_table_calls_the_handlers_of_routers_itself(
    pair: tuple[AsyncClient, AsyncClient, RouteTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, client, table = pair

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("by the router", 418)(scope, receive, send)

    monkeypatch.setattr(table, "_route", refuse)

    for path in ("/v1/out/in/7", "/v1/twice/in/7", "/v1/out/in/late", "/direct"):
        assert (await client.get(path)).status_code == 200, path
    for path in ("/files/a", "/m/", "/p/plain", "/nowhere", "/beta"):
        assert (await client.get(path)).status_code == 418, path
    form = "/v1/out/in/form/00000000-0000-0000-0000-000000000000"
    assert (await client.post(form)).status_code == 418


@pytest.mark.parametrize(
    ("request_line", "template"),
    [
        ("GET /v1/out/in/7", "/v1/out/in/{number}"),
        ("DELETE /v1/out/in/7", "/v1/out/in/{number}"),
        ("GET /files/a", "/files/{path}"),
        ("GET /p/plain", "/p/plain"),
        ("POST /v1/out/in/form/none", "/v1/out/in/form/{key}"),
        ("GET /nowhere", None),
    ],
)
async def test_template_has_the_prefix_of_every_router(
    pair: tuple[AsyncClient, AsyncClient, RouteTable],
    request_line: str,
    template: str | None,
) -> None:
    method, path = request_line.split(" ")
    scope = {"type": "http", "method": method, "path": path, "headers": []}
    route, path_params = pair[2].find(scope)

    assert (route.path if route else None) == template
    assert (path_params is None) is (method == "DELETE" or template is None)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_parameter_that_its_convertor_rejects_is_404_of_any_method(
    pair: tuple[AsyncClient, AsyncClient, RouteTable], method: str
) -> None:
    answer = await pair[1].request(method, f"/v1/out/in/{'9' * 4301}")

    assert answer.status_code == 404


async def test_route_that_is_added_later_is_found_by_the_router() -> None:
    app, table = FastAPI(), RouteTable()
    table.read(app)

    @app.get("/later")
    async def later() -> str:
        return "here"

    async with AsyncClient(
        transport=ASGITransport(app), base_url="http://test"
    ) as client:
        assert (await client.get("/later")).json() == "here"
