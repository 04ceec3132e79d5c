"""Whoever has written sees it in the next read: the position of the commit goes along.

It is not signed: whoever makes one up waits 0.2 s at most, and reads from the primary.
"""

from fastapi.requests import HTTPConnection
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .db.position import SEEN, Seen, from_token, to_token, union
from .db.settings import READ_AFTER_SECONDS

HEADER = "X-Read-After"
COOKIE = f"{__name__.partition('.')[0]}_read_after"


class ReadYourWrites:
    """Answers a write with its position, and takes it from the reads that follow."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        client = HTTPConnection(scope)
        seen = Seen(
            union(
                from_token(client.headers.get(HEADER, "")),
                from_token(client.cookies.get(COOKIE, "")),
            )
        )
        SEEN.set(seen)

        async def send_with_position(message: Message) -> None:
            if message["type"] == "http.response.start" and seen.written:
                token = to_token(seen.written)
                secure = "; Secure" if scope["scheme"] == "https" else ""
                headers = MutableHeaders(scope=message)
                headers[HEADER] = token
                headers.append(
                    "Set-Cookie",
                    f"{COOKIE}={token}; Max-Age={READ_AFTER_SECONDS}; Path=/; HttpOnly;"
                    f" SameSite=Lax{secure}",
                )
            await send(message)

        await self.app(scope, receive, send_with_position)
