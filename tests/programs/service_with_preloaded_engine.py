"""The service around an engine that was used during the import, as with preload_app."""

import asyncio
import os
from contextlib import suppress

from shop import main
from shop.db.engine.create import create_engine
from shop.settings import Settings

with suppress(ImportError):  # SQLite has none
    from shop.db.engine import validation

    validation.IDLE_SECONDS = 3600  # else the worker pings, and opens another
settings = Settings.load()
engine = create_engine(settings.server, settings.limits)


async def query() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("SELECT 1")).scalar()


asyncio.run(query())


async def probe() -> int:
    await query()
    return os.getpid()


def create_app():
    app = main.create_app()
    app.add_api_route("/probe", probe)
    return app
