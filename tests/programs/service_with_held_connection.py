"""The service with a route that keeps a connection checked out and never ends."""

import asyncio
import os

from fastapi import Request
from fastapi.responses import StreamingResponse
from shop import main
from sqlalchemy import select


async def hold(database):
    async with database.engine.connect() as connection:
        await connection.execute(select(1))
        yield str(os.getpid())
        await asyncio.Event().wait()


async def held(request: Request):
    return StreamingResponse(hold(request.state.database))


def create_app():
    app = main.create_app()
    app.add_api_route("/held", held)
    return app
