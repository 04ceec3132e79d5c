"""Read your writes: a client's next read sees what it has written, on any replica.

The token is not signed: a read with one that is made up goes to the primary, after
WAIT_SECONDS of db/replicas/position.py at most (0 where the clock decides).
"""

from fastapi.requests import HTTPConnection
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..db.replicas.settings import READ_AFTER_SECONDS
from ..db.replicas.watermark import (
    ReadWatermark,
    current_watermark,
    decode_token,
    encode_token,
    merge,
)

HEADER = "X-Read-After"
COOKIE = f"{__name__.partition('.')[0]}_read_after"


class ReadYourWrites:
    """Answers a write with its position, and takes it from the reads that follow."""

    exposed = (HEADER,)  # to a page of another origin

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        client = HTTPConnection(scope)
        header = decode_token(client.headers.get(HEADER, ""))
        cookie = decode_token(client.cookies.get(COOKIE, ""))
        watermark = ReadWatermark(merge(header, cookie))
        current_watermark.set(watermark)

        async def send_with_token(message: Message) -> None:
            if message["type"] == "http.response.start" and watermark.written:
                token = encode_token(watermark.written)
                secure = "; Secure" if scope["scheme"] == "https" else ""
                headers = MutableHeaders(scope=message)
                headers[HEADER] = token
                headers.append(
                    "Set-Cookie",
                    f"{COOKIE}={token}; Max-Age={READ_AFTER_SECONDS}; Path=/; HttpOnly;"
                    f" SameSite=Lax{secure}",
                )
            await send(message)

        await self.app(scope, receive, send_with_token)
