"""The number of round trips that each kind of use of the only connection takes."""

import asyncio
import json
from contextlib import suppress
from itertools import count
from unittest import mock

import uvloop
from server_sessions import PROBES, Server
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.settings import Settings
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError

from tests.support.proxy import Proxy

# Longer than a connection may be idle without being asked whether it is still there.
IDLE_SECONDS = 1.1

numbers = count()


def without_pings():
    """However long a busy machine lets a connection rest."""
    return mock.patch("shop.db.engine.validation.IDLE_SECONDS", 3600)


async def read(database):
    async with database.read() as session:
        await session.scalars(select(PROBES.c.id))


KEPT = select(PROBES.c.id).where(PROBES.c.id == 0)


async def two_reads(database):
    async with database.read() as session:
        for _ in range(2):
            await session.execute(KEPT)


async def snapshot_of_two(database):
    async with database.snapshot() as session:
        for _ in range(2):
            await session.execute(KEPT)


async def snapshot_with_settings(database):
    if DIALECT == "postgresql":
        async with database.snapshot({"app.tenant": "acme"}) as session:
            await session.execute(KEPT)


async def write_with_settings(database):
    if DIALECT == "postgresql":
        async with database.write({"app.tenant": "acme"}) as session:
            await session.execute(KEPT)


async def unused(database):
    async with database.write(), database.snapshot(), database.read():
        pass


async def lose_a_snapshot(database, proxy):
    """At its first statement a snapshot begins anew; later its state is gone."""
    outcomes = []
    for statements in (0, 1):
        await read(database)  # on a connection that is in the pool, and not idle
        try:
            async with database.snapshot() as session:
                for _ in range(statements):
                    await session.execute(KEPT)
                proxy.break_connections()
                outcomes.append(len((await session.execute(KEPT)).all()))
        except DBAPIError as error:
            outcomes.append(error.connection_invalidated)
    return outcomes


async def write(database):
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=next(numbers)))


async def write_and_fail(database):
    with suppress(ZeroDivisionError):
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=next(numbers)))
            raise ZeroDivisionError


KINDS = (
    *(read, two_reads, write, write_and_fail, unused, snapshot_of_two),
    *(snapshot_with_settings, write_with_settings),
)


async def main():
    settings = Settings.load()
    async with open_database(settings) as direct:
        await Server(direct, DIALECT).create_probes()
    counted = {}
    with Proxy(settings.database_host, settings.database_port) as proxy:
        through = {"database_port": proxy.port, "database_sslmode": "disable"}
        async with open_database(settings.model_copy(update=through)) as database:
            with without_pings():
                for kind in KINDS:
                    await kind(database)  # asyncpg prepares a statement when it is new

                    proxy.reset()
                    await kind(database)
                    counted[kind.__name__] = proxy.round_trips
            await asyncio.sleep(IDLE_SECONDS)
            proxy.reset()
            await read(database)
            counted["read after a pause"] = proxy.round_trips
            with without_pings():
                counted["lost"] = await lose_a_snapshot(database, proxy)
            counted["left"] = database.engine.sync_engine.pool.checkedout()
    print(json.dumps(counted))


uvloop.run(main())
