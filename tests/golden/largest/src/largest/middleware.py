"""Around every request: its id and its line in the log, and a limit for its body."""

import logging
import re
from time import perf_counter
from uuid import uuid4

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import request_id

MAX_BYTES = "max_body_bytes"  # in the scope: the limit of this request alone
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")

logger = logging.getLogger(__name__)


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
        identity = given if PLAIN.fullmatch(given) else uuid4().hex
        # Not reset: the error handler outside of this middleware still wants it.
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


def allow_body(request: Request, max_bytes: int) -> None:
    """For a route that reads `request.stream()`, which holds no body in memory."""
    request.scope[MAX_BYTES] = max_bytes


class BodyLimit:
    """Refuses a body that is declared too long, or that grows too long."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        header = Headers(scope=scope).get("content-length", "")
        declared = int(header) if header.isdecimal() else 0
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            limit = scope.get(MAX_BYTES, self.max_bytes)
            # Before the rest of it has come, if it was announced.
            message: Message = await receive() if declared <= limit else {}
            received += len(message.get("body", b""))
            if max(declared, received) > limit:
                raise HTTPException(413, f"At most {limit:,} bytes, please.")
            return message

        await self.app(scope, receive_limited, send)
