"""The rows of an export whose statement takes longer than the limit of others."""

import asyncio

from shop.db import batches, export, open_database
from shop.db.config.backend import DIALECT
from shop.settings import Settings
from sqlalchemy import func, select, text

SLEEP = {"mysql": func.sleep, "postgresql": func.pg_sleep}


async def main():
    async with open_database(Settings.load()) as database, export(database) as rows:
        # MySQL ends a slow SLEEP without an error, unless there are rows.
        two = text("(SELECT 1 UNION SELECT 2) AS two")
        slow = await rows.stream(select(SLEEP[DIALECT](1.5)).select_from(two))
        print(sum([len(batch) async for batch in batches(slow)]))


asyncio.run(main())
