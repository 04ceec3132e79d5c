"""The number of round trips that each kind of use of the only connection takes."""

import asyncio
import json
from contextlib import suppress
from itertools import count

import uvloop
from server_sessions import PROBES, Server
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.settings import Settings
from sqlalchemy import insert, select

from tests.support.proxy import Proxy

# Longer than a connection may be idle without being asked whether it is still there.
IDLE_SECONDS = 1.1

numbers = count()


async def read(database):
    async with database.read() as session:
        await session.scalars(select(PROBES.c.id))


async def write(database):
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=next(numbers)))


async def write_and_fail(database):
    with suppress(ZeroDivisionError):
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=next(numbers)))
            raise ZeroDivisionError


async def main():
    settings = Settings.load()
    async with open_database(settings) as direct:
        await Server(direct, DIALECT).create_probes()
    counted = {}
    with Proxy(settings.database_host, settings.database_port) as proxy:
        through = {"database_port": proxy.port, "database_sslmode": "disable"}
        async with open_database(settings.model_copy(update=through)) as database:
            for kind in (read, write, write_and_fail):
                await kind(database)  # asyncpg prepares a statement when it is new

                proxy.reset()
                await kind(database)
                counted[kind.__name__] = proxy.round_trips
            await asyncio.sleep(IDLE_SECONDS)
            proxy.reset()
            await read(database)
            counted["read after a pause"] = proxy.round_trips
    print(json.dumps(counted))


uvloop.run(main())
