"""One connection to the database, opened as the service opens its own."""

import asyncio

from shop.db import open_database
from shop.settings import Settings


async def ping():
    async with open_database(Settings.load()) as database:
        await database.ping()


asyncio.run(ping())
