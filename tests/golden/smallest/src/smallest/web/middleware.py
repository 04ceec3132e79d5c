"""Middleware of every request: request id and access log, and a limit for the body."""

import logging
import re
from contextvars import ContextVar
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.body_limit import (
    RequestBodyLimitMiddleware,
    RequestBodyLimitResponder,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .settings import WebSettings

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
# Header of a task's message, and how it is written and read.
REQUEST_ID = ("request_id", request_id.get, request_id.set)

logger = logging.getLogger(__name__)


class RequestIdFilter(logging.Filter):
    """Adds the id of the request to each log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        return True


class RequestLog:
    """Takes X-Request-ID from the caller or makes one, and answers with it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = perf_counter()
        status = 500
        given = Headers(scope=scope).get("x-request-id", "")
        identity = given if REQUEST_ID_PATTERN.fullmatch(given) else uuid4().hex
        # Not reset: the error handler outside of this middleware uses it.
        request_id.set(identity)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = identity
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            took = {"duration_ms": round((perf_counter() - started) * 1000, 1)}
            method, path = scope["method"], scope["path"]
            logger.info("%s %s %d", method, path, status, extra=took)


class BodyLimit(RequestBodyLimitMiddleware):
    """Answers 413 to a body above the limit; a route raises it by `max_body_size=`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Responder(self.app, self.max_body_size)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Responder(RequestBodyLimitResponder):
    async def send_with_limit(self, message: Message) -> None:
        # The answer of the error handlers as it is; Starlette's would be plain text.
        await self.send(message)


def default_middleware(settings: WebSettings) -> list[Middleware]:
    return [
        Middleware(RequestLog),
        Middleware(BodyLimit, max_body_size=settings.max_body_bytes),
    ]
