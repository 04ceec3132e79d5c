"""The service with a route whose answer never ends."""

import asyncio

from fastapi.responses import StreamingResponse
from shop import main


async def chunks():
    while True:
        yield "on and "
        await asyncio.sleep(0.1)


async def endless():
    return StreamingResponse(chunks())


def create_app():
    app = main.create_app()
    app.add_api_route("/endless", endless)
    return app
