"""The service around an engine that its import has used, as preload_app has it."""

import asyncio
import os

from shop import main
from shop.db.engine import create_engine
from shop.settings import Settings

engine = create_engine(Settings.load())


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
