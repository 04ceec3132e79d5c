"""The rows of an export whose statement takes longer than the limit of others."""

import asyncio

from shop.db.bulk import export, in_parts
from shop.db.dialect import DIALECT
from shop.db.session import open_database
from shop.settings import Settings
from sqlalchemy import func, select

SLEEP = {"mysql": func.sleep, "postgresql": func.pg_sleep}


async def main():
    async with open_database(Settings.load()) as database, export(database) as rows:
        slow = await rows.stream(select(SLEEP[DIALECT](3)))
        print(sum([len(part) async for part in in_parts(slow)]))


asyncio.run(main())
