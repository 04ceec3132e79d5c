"""Several hosts, of which the first one accepts a connection and says nothing.

DATABASE_URL leads to the primary. The program prints the outcome of one read after the
other, whether one has taken longer than a checkout may take, how often the silent host
was tried by the first connect that succeeded, and how often since then, by as many
connects as the pool has room for.
"""

import asyncio
import json
import os
import socket
from time import monotonic

import uvloop
from shop.db import open_database
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import make_url, select

READS, CONNECTIONS = 3, 4
# For a machine that has other things to do.
SPARE_SECONDS = 5


async def read(database):
    began = monotonic()
    try:
        async with database.read() as session:
            await session.scalar(select(1))
    except Exception as error:
        outcome = str(classify(error) or repr(error))
    else:
        outcome = "well"
    return outcome, monotonic() - began


async def fill(database):
    everybody = asyncio.Barrier(CONNECTIONS)

    async def use():
        async with database.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            await everybody.wait()

    async with asyncio.timeout(30):
        await asyncio.gather(*(use() for _ in range(CONNECTIONS)))


async def main():
    tried = []

    async def accept(_, writer):
        tried.append(writer)

    url = os.environ["DATABASE_URL"]
    primary = make_url(url)
    server = await asyncio.start_server(accept, "127.0.0.1", 0, family=socket.AF_INET)
    silent = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    own = f"{primary.host}:{primary.port}"
    settings = Settings(database_url=url.replace(own, f"{silent},{own}"))
    limit = settings.database_acquire_timeout_seconds + SPARE_SECONDS
    async with open_database(settings) as database:
        reads = [await read(database) for _ in range(READS)]
        before = len(tried)
        if reads[-1][0] == "well":
            await fill(database)
    print(
        json.dumps(
            {
                "reads": [outcome for outcome, _ in reads],
                "late": any(seconds > limit for _, seconds in reads),
                "tried": before,
                "tried since": len(tried) - before,
            }
        )
    )
    for writer in tried:
        writer.transport.abort()


uvloop.run(main())
