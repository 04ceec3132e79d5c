"""Error answers: problem documents (RFC 9457), which say what happened to the data."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import responses
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..db.errors import (
    CommitOutcomeUnknown,
    FaultKind,
    OperationTimeout,
    classify,
    safe_message,
)
from .middleware import request_id
from .routes import EXCHANGE, path_of

logger = logging.getLogger(__name__)

# Status and detail.
PROBLEMS = {
    FaultKind.CONFLICT: (409, "A constraint of the database rejects this change."),
    FaultKind.INVALID_VALUE: (
        422,
        "A value is too large, too long, or not of the kind that its column holds."
        " Nothing was changed.",
    ),
    FaultKind.BUSY: (503, "No connection or lock in time. Nothing was changed: retry."),
    FaultKind.TIMEOUT: (503, "This took too long. Nothing was changed."),
    FaultKind.UNAVAILABLE: (503, "The database is unavailable. Nothing was changed."),
    FaultKind.OUTCOME_UNKNOWN: (504, "Lost during COMMIT: check before you retry."),
}
STALE = "Another request has changed or deleted a row meanwhile. Nothing was changed."


def problem(
    status: int,
    detail: Any,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """`kind` tells problems of one status apart; a client may rely on it."""
    body = {
        "type": f"urn:problem:{kind}" if kind else "about:blank",
        "title": responses.get(status, "Error"),
        "status": status,
        "detail": detail,
        "request_id": request_id.get(),
        **extra,
    }
    return JSONResponse(body, status, headers, "application/problem+json")


async def _http_error(request: Request, error: HTTPException) -> Response:
    if error.status_code in (204, 304):  # they have no body
        return Response(status_code=error.status_code, headers=error.headers)
    if error.status_code == 405:  # Starlette names the methods of one route alone
        headers = {"Allow": ", ".join(sorted(_methods(request)))}
        return problem(405, error.detail, headers=headers)
    return problem(error.status_code, error.detail, headers=error.headers)


def _methods(request: Request) -> set[str]:
    """Of all routes with the path of the request."""
    path = path_of(request.scope)
    return {
        method
        for route in iter_route_contexts(request.app.routes)
        if (pattern := getattr(route, "path_regex", None)) and pattern.match(path)
        for method in route.methods or ()
    }


async def _invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
    # Where and what, not the value: it may be a secret, or a megabyte.
    errors = [
        {"at": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
        for item in error.errors()
    ]
    return problem(422, "The request is not valid.", errors=errors)


async def _database_error(
    connection: HTTPConnection, error: Exception
) -> Response | None:
    fault = classify(error)
    if not fault:
        raise error
    if exchange := connection.scope.get(EXCHANGE):
        exchange.problem = fault
    logger.warning("%s: %s", fault, safe_message(error))
    if isinstance(connection, WebSocket):
        await _close(connection.send, fault)
        return None  # it has no answer
    status, detail = PROBLEMS[fault]
    if isinstance(error, StaleDataError):
        detail = STALE
    seconds = getattr(error, "retry_seconds", 1)
    headers = {"Retry-After": str(seconds)} if status == 503 else None
    return problem(status, detail, kind=fault, headers=headers)


async def _close(send: Send, reason: str = "") -> None:
    """End a websocket by 1011, "internal error": without a code its client cannot tell
    the end from a lost network.
    """
    with suppress(RuntimeError, WebSocketDisconnect):  # closed already
        await send({"type": "websocket.close", "code": 1011, "reason": reason})


async def _client_disconnected(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: no client waits for an answer


class UnhandledErrors:
    """Answers 500 to an error without a handler, and logs its traceback.

    Starlette would do it outside of every middleware, without their headers, and raise
    the error again: the server would close the connection without a word. An answer
    that has begun is cut, so that its reader sees that it is not whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            return await self._websocket(scope, receive, send)
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        has_begun = has_ended = False

        async def note(message: Message) -> None:
            nonlocal has_begun, has_ended
            if message["type"] == "http.response.start":
                has_begun = True
            else:
                has_ended = not message.get("more_body", False)
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception as error:
            if has_begun and not has_ended:
                raise
            logger.exception("unhandled %s", type(error).__name__)
            if not has_begun:
                answer = problem(500, "This is a fault of the service.")
                await answer(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def reach(message: Message) -> None:
            try:
                await send(message)
            except OSError as error:  # the server's: the client has left
                raise WebSocketDisconnect(1006) from error

        try:
            await self.app(scope, receive, reach)
        except WebSocketDisconnect:
            return  # a handler need not catch it
        except Exception as error:
            logger.exception("unhandled %s", type(error).__name__)
            await _close(reach)


# Around the handlers, within all other middleware; and for an error of a middleware.
UNHANDLED_ERRORS = Middleware(UnhandledErrors)
EXCEPTION_HANDLERS: dict[Any, Callable[..., Any]] = {
    ClientDisconnect: _client_disconnected,
    HTTPException: _http_error,
    RequestValidationError: _invalid_request,
    StatementError: _database_error,
    StaleDataError: _database_error,
    PoolTimeoutError: _database_error,
    CommitOutcomeUnknown: _database_error,
    OperationTimeout: _database_error,
}
