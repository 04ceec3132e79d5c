"""Around every request: its id and its line in the log, and a limit for its body."""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import request_id

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
        identity = given if re.fullmatch(r"[\w.-]{1,64}", given) else uuid4().hex
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
            logger.info(
                "%s %s %d",
                scope["method"],
                scope["path"],
                status,
                extra={"duration_ms": round((perf_counter() - started) * 1000, 1)},
            )


class BodyLimit:
    """Refuses a body once it has grown too long, whatever its headers claim."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise HTTPException(413, f"At most {self.max_bytes:,} bytes, please.")
            return message

        limited = receive_limited if scope["type"] == "http" else receive
        await self.app(scope, limited, send)
