"""Handlers of the errors that have an answer of their own."""

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import isawaitable
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from ...db.errors import (
    CommitOutcomeUnknown,
    OperationTimeout,
    classify,
    safe_message,
)
from ..routes import EXCHANGE, path_of
from . import PROBLEMS, problem

logger = logging.getLogger(__name__)

STALE = "Another request has changed or deleted a row meanwhile. Nothing was changed."
# Codes of RFC 6455 for the end of a websocket.
CANNOT_BE_READ, REJECTED, INTERNAL_ERROR = 1003, 1008, 1011
REASON_BYTES = 123


async def _http_error(
    connection: HTTPConnection, error: HTTPException
) -> Response | None:
    status, headers = error.status_code, error.headers
    if (
        isinstance(connection, WebSocket)
        and connection.application_state is WebSocketState.CONNECTED
    ):
        code = REJECTED if status < 500 else INTERNAL_ERROR
        logger.info("websocket closed by an HTTPException of status %s", status)
        await close(connection.send, code, str(error.detail))
        return None  # its answer was that to the handshake
    if status in (204, 304):  # they have no body
        return Response(status_code=status, headers=headers)
    if status == 405:  # Starlette names the methods of one route alone
        headers = {"Allow": ", ".join(sorted(_methods(connection)))}
    return problem(status, error.detail, headers=headers)


def _methods(connection: HTTPConnection) -> set[str]:
    """Of all routes with the path of the request."""
    path = path_of(connection.scope)
    return {
        method
        for route in iter_route_contexts(connection.app.routes)
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


async def database_error(
    connection: HTTPConnection, error: Exception
) -> Response | None:
    fault = classify(error)
    if not fault:
        raise error
    if exchange := connection.scope.get(EXCHANGE):
        exchange.problem = fault
    cause = safe_message(error)
    logger.warning("%s: %s", fault, cause, extra={"problem": fault})
    if isinstance(connection, WebSocket):
        await close(connection.send, INTERNAL_ERROR, fault)
        return None  # it has no answer
    status, detail = PROBLEMS[fault]
    if isinstance(error, StaleDataError):
        detail = STALE
    seconds = getattr(error, "retry_seconds", 1)
    headers = {"Retry-After": str(seconds)} if status == 503 else None
    return problem(status, detail, kind=fault, headers=headers)


async def _group_error(
    connection: HTTPConnection, group: ExceptionGroup[Exception]
) -> Response | None:
    """Of a TaskGroup: errors of one kind have the answer of the first of them."""
    leaves = [*_leaves(group)]
    kinds = {(type(each), getattr(each, "status_code", None)) for each in leaves}
    handler = find_handler(connection, leaves[0])
    if len(kinds) > 1 or not handler or classify(group):
        return await database_error(connection, group)
    return await call_handler(handler, connection, leaves[0])


def find_handler(
    connection: HTTPConnection, error: BaseException
) -> Callable[..., Any] | None:
    """That of its nearest class, as Starlette finds it within all middleware."""
    handlers = connection.app.exception_handlers
    classes = type(error).__mro__
    return next((handlers[each] for each in classes if each in handlers), None)


async def call_handler(
    handler: Callable[..., Any], connection: HTTPConnection, error: BaseException
) -> Response | None:
    answer: Response | None = handler(connection, error)
    return await answer if isawaitable(answer) else answer


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


async def close(send: Send, code: int, reason: str = "") -> None:
    """End a websocket: without a code its client cannot tell the end from a lost
    network.
    """
    reason = reason.encode(errors="replace")[:REASON_BYTES].decode(errors="ignore")
    with suppress(RuntimeError, WebSocketDisconnect):  # closed already
        await send({"type": "websocket.close", "code": code, "reason": reason})


async def _client_disconnected(_: Request, __: ClientDisconnect) -> Response:
    return Response(status_code=499)  # for the log: no client waits for an answer


EXCEPTION_HANDLERS: dict[Any, Callable[..., Any]] = {
    ClientDisconnect: _client_disconnected,
    HTTPException: _http_error,
    RequestValidationError: _invalid_request,
    ExceptionGroup: _group_error,
    StatementError: database_error,
    StaleDataError: database_error,
    PoolTimeoutError: database_error,
    CommitOutcomeUnknown: database_error,
    OperationTimeout: database_error,
}
