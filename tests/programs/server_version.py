"""Prints the version of the server."""

import asyncio

from shop.db import open_database
from shop.settings import Settings
from sqlalchemy import func, select


async def main():
    async with open_database(Settings.load()) as database, database.read() as session:
        print(await session.scalar(select(func.version())))


asyncio.run(main())
