"""The service with routes for which the README tells its owner to add a library."""

from fastapi import Request, UploadFile, WebSocket
from shop import main
from shop.db import Write
from sqlalchemy import literal, select

LIMIT = 2_000_000


async def upload(file: UploadFile) -> int:
    return len(await file.read())


async def echo(socket: WebSocket, session: Write) -> None:
    """Holds a connection of the pool from the first message on."""
    await socket.accept()
    async for text in socket.iter_text():
        if text == "raise":
            raise ZeroDivisionError
        await socket.send_text(str(await session.scalar(select(literal(text)))))


async def checked_out(request: Request) -> int:
    return request.state.database.engine.sync_engine.pool.checkedout()


def create_app():
    app = main.create_app()
    app.add_api_route("/upload", upload, methods=["POST"])
    app.add_api_route("/large", upload, methods=["POST"], max_body_size=LIMIT)
    app.add_api_websocket_route("/echo", echo)
    app.add_api_route("/checked-out", checked_out)
    return app
