"""The payloads that a listener gets, before and after its session ends.

The first NOTIFY goes through the pooler. The output also has the error of one listener
too many, and the number of tasks at the end.
"""

import asyncio
import json
from contextlib import aclosing

import uvloop
from shop.db import open_database
from shop.db.pooler.listen import listen
from shop.settings import Settings
from sqlalchemy import text

LISTENERS = "FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"


async def rejection(settings):
    """The error of a listener beyond DATABASE_LISTENERS."""
    try:
        async with aclosing(listen(settings, "Others")) as payloads:
            await anext(payloads)
    except RuntimeError as error:
        return str(error)
    return None


async def main():
    settings = Settings.load()
    heard = []
    async with (
        open_database(settings) as pooled,
        open_database(Settings(database_url=settings.database_direct_url)) as db,
    ):

        async def execute(database, query):
            async with database.write() as session:
                return await session.scalar(text(query))

        async with asyncio.timeout(20):
            async with aclosing(listen(settings, "Orders")) as payloads:
                heard.append(await anext(payloads))
                error = await rejection(settings)
                await execute(pooled, "SELECT pg_notify('Orders', 'one')")
                heard.append(await anext(payloads))
                ended = f"SELECT count(pg_terminate_backend(pid, 5000)) {LISTENERS}"
                heard.append(await execute(db, ended))
                heard.append(await anext(payloads))
                await execute(pooled, "SELECT pg_notify('Orders', 'two')")
                heard.append(await anext(payloads))
            while await execute(db, f"SELECT count(*) {LISTENERS}"):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            # A listener that has ended is not counted.
            async with aclosing(listen(settings, "Orders")) as payloads:
                heard.append(await anext(payloads))
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    print(json.dumps({"heard": heard, "error": error, "tasks": len(tasks)}))


uvloop.run(main())
