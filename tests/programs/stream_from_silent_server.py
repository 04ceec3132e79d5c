"""A stream in a transaction whose server falls silent between two fetches.

The program prints the name of the fault. The URL is without encryption: a proxy is in
front of the server.
"""

import asyncio
import os

import uvloop
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import make_url, text

from tests.support.proxy import Proxy

ROWS = {
    "postgresql": "SELECT repeat('x', 1000) FROM generate_series(1, 300000)",
    "mysql": "SELECT repeat('x', 1000) FROM seq_1_to_300000",
}
# What has not ended by then never will.
NEVER_SECONDS = float(os.environ.get("NEVER_SECONDS", "15"))


async def read(database, proxy):
    async with database.write() as session:
        query = text(ROWS[DIALECT]).execution_options(yield_per=1000)
        rows = await session.stream(query)
        await rows.fetchmany(1000)
        proxy.freeze()
        while await rows.fetchmany(1000):
            pass


async def main():
    url = make_url(os.environ["DATABASE_URL"])
    with Proxy("127.0.0.1", url.port) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        os.environ["DATABASE_URL"] = through
        async with open_database(Settings.load()) as database:
            task = asyncio.create_task(read(database, proxy))
            done, _ = await asyncio.wait({task}, timeout=NEVER_SECONDS)
            error = task.exception() if done else None
            print(error and (classify(error) or repr(error)), flush=True)
            if not done:
                os._exit(0)


uvloop.run(main())
