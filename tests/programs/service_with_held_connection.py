"""The service with a route whose answer holds a connection and never ends."""

import asyncio
import os

from fastapi import Request
from fastapi.responses import StreamingResponse
from shop import main
from sqlalchemy import select


async def hold(database):
    async with database.read() as session:
        await session.execute(select(1))
        yield str(os.getpid())
        await asyncio.Event().wait()


async def held(request: Request):
    return StreamingResponse(hold(request.state.database))


def create_app():
    app = main.create_app()
    app.add_api_route("/held", held)
    return app
