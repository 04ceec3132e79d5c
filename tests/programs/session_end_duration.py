"""The seconds that it takes to return a connection, which a function then closes.

The program reads once, prints "open", and returns the connection after a line of input.
"""

import asyncio
import sys
from time import monotonic

from shop.db import open_database
from shop.settings import Settings
from sqlalchemy import select


async def main():
    async with open_database(Settings.load()) as database:
        async with database.engine.connect() as connection:
            await connection.scalar(select(1))
            print("open", flush=True)
            sys.stdin.readline()
            since = monotonic()
        print(monotonic() - since, flush=True)


asyncio.run(main())
