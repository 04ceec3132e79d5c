"""The seconds that the end of a session takes.

The program reads once, prints "open", and ends its session after a line of input.
"""

import asyncio
import sys
from time import monotonic

from shop.db.session import open_database
from shop.settings import Settings
from sqlalchemy import select


async def main():
    async with open_database(Settings.load()) as database:
        async with database.read() as session:
            await session.scalar(select(1))
            print("open", flush=True)
            sys.stdin.readline()
            since = monotonic()
        print(monotonic() - since, flush=True)


asyncio.run(main())
