"""A task whose time is up: before its COMMIT, and while COMMIT has no answer.

The program prints the name of each fault. The URL is without encryption: a proxy is in
front of the server.
"""

import asyncio
import json
import os

import uvloop
from shop.db import open_database
from shop.db.errors import classify
from shop.settings import Settings
from shop.worker.execution import _run_bounded
from sqlalchemy import make_url, select, text

from tests.support.proxy import Proxy


async def kind(work, seconds, database):
    try:
        await _run_bounded(work, seconds, database)
    except Exception as error:
        return classify(error) or repr(error)
    return "done"


async def main():
    url = make_url(os.environ["DATABASE_URL"])
    with Proxy("127.0.0.1", url.port) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        os.environ["DATABASE_URL"] = through
        async with open_database(Settings.load()) as database:

            async def ends_late(database):
                async with database.write() as session:
                    await session.execute(text("SELECT 1"))
                    await asyncio.sleep(60)

            async def commits_late(database):
                async with database.write() as session:
                    await session.execute(text("SELECT 1"))
                    proxy.freeze()

            async with database.read() as session:  # so that a connection is there
                await session.scalar(select(1))
            found = [
                await kind(work, seconds, database)
                for work, seconds in ((ends_late, 1), (commits_late, 3))
            ]
            proxy.heal()
    print(json.dumps(found))


uvloop.run(main())
