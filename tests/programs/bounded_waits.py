"""Waits for a server that falls silent, and what they leave in the pool.

The arguments are names of scenarios; the program prints the outcome of each. The URL is
without encryption: a proxy is in front of the server.
"""

import asyncio
import json
import os
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from unittest import mock

import uvloop
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.engine.validation import retire
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import event, func, make_url, select, table, text
from sqlalchemy.engine.default import DefaultDialect

from tests.support.proxy import Proxy

# Longer than a connection may be idle without a ping.
IDLE_SECONDS = 1.1
# What has not ended by then never will: the longest limit is 5 s.
NEVER_SECONDS = float(os.environ.get("NEVER_SECONDS", "15"))
# What SQLAlchemy asks on its first connection.
FIRST_QUERY = {
    "postgresql": rb"(?i)select pg_catalog.version",
    "mysql": rb"(?i)select @@|select version|show variables",
}
PROBES = table("probes")
WRITE = "INSERT INTO probes (value) VALUES (1)"
TABLE = "CREATE TABLE IF NOT EXISTS probes (value INTEGER)"


class Lab:
    def __init__(self, proxy, database):
        self.proxy = proxy
        self.database = database
        self.opened = 0
        self.invalidated = []
        engine = database.engine.sync_engine
        event.listen(engine, "connect", self._count)
        event.listen(engine, "invalidate", self._note)

    def _count(self, *_):
        self.opened += 1

    def _note(self, _, __, error):
        self.invalidated.append(str(error))

    async def read(self):
        async with self.database.read() as session:
            await session.scalar(select(1))

    async def write(self):
        async with self.database.write() as session:
            await session.execute(text(WRITE))

    async def rows(self):
        async with self.database.read() as session:
            return await session.scalar(select(func.count()).select_from(PROBES))

    @asynccontextmanager
    async def all_connections(self, number):
        """So many at once, opened one after the other."""
        async with AsyncExitStack() as stack:
            for _ in range(number):
                each = self.database.engine.connect()
                connection = await stack.enter_async_context(each)
                await connection.exec_driver_sql("SELECT 1")
            yield

    async def fill(self, number):
        async with self.all_connections(number):
            pass


@asynccontextmanager
async def laboratory(size=3, overflow=0):
    url = make_url(os.environ["DATABASE_URL"])
    with Proxy("127.0.0.1", url.port) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        settings = Settings(database_url=through).model_copy(
            update={"database_pool_size": size, "database_max_overflow": overflow}
        )
        async with open_database(settings) as database:
            yield Lab(proxy, database)
            proxy.heal()


async def outcome(use):
    task = asyncio.ensure_future(use)
    done, _ = await asyncio.wait({task}, timeout=NEVER_SECONDS)
    if not done:
        print(json.dumps("never"), flush=True)
        os._exit(0)
    if task.cancelled():
        return "cancelled"
    error = task.exception()
    return str(classify(error) or repr(error)) if error else "well"


async def statement():
    async with laboratory() as lab:
        await lab.read()
        lab.proxy.freeze()
        return await outcome(lab.read())


async def commit():
    async def write():
        async with lab.database.write() as session:
            await session.execute(text(WRITE))
            lab.proxy.freeze()

    async with laboratory() as lab:
        return await outcome(write())


async def rollback():
    async def write():
        async with lab.database.write() as session:
            await session.execute(text(WRITE))
            lab.proxy.freeze()
            raise ZeroDivisionError

    async with laboratory() as lab:
        return await outcome(write())


async def ping():
    async with laboratory() as lab:
        await lab.read()
        await asyncio.sleep(IDLE_SECONDS)
        lab.proxy.freeze()
        return await outcome(lab.read())


async def first_connect():
    async with laboratory() as lab:
        lab.proxy.drop_after(FIRST_QUERY[DIALECT])
        first = await outcome(lab.read())
        lab.proxy.heal()
        return [first, await outcome(lab.read())]


async def close():
    """Of a connection beyond the size of the pool, when it is returned."""
    async with laboratory(1, 1) as lab, AsyncExitStack() as stack:
        await stack.enter_async_context(lab.all_connections(2))
        lab.proxy.freeze()
        return await outcome(stack.pop_all().aclose())


async def failed_rollback():
    """A ROLLBACK fails as no lost connection does: the next writer would commit all."""

    def fail_once(self, connection):
        failed.append(connection)
        if len(failed) == 1:
            raise RuntimeError("out of sync")
        do_rollback(self, connection)

    async def write():
        async with lab.database.write() as session:
            await session.execute(text(WRITE))
            raise ZeroDivisionError

    failed = []
    do_rollback = DefaultDialect.do_rollback
    async with laboratory(1) as lab:
        await lab.read()
        before = await lab.rows()
        with mock.patch.object(DefaultDialect, "do_rollback", fail_once):
            ended = await outcome(write())
        later = [await outcome(lab.write()), await outcome(lab.read())]
        return [ended, *later, lab.opened, await lab.rows() - before]


async def retired_pool():
    async with laboratory() as lab:
        await lab.fill(3)
        retire(lab.database.engine)
        await lab.fill(3)
        return lab.invalidated


async def dead_network():
    """Connections from before hang, new ones do not: the first ping says it for all."""
    async with laboratory() as lab:
        await lab.fill(3)
        for link in lab.proxy._links.values():
            link.is_deaf = True
        await asyncio.sleep(IDLE_SECONDS)
        ended = await outcome(lab.fill(3))
        return [ended, *lab.invalidated]


async def main(names):
    async with laboratory() as lab, lab.database.engine.connect() as connection:
        await connection.exec_driver_sql(TABLE)
    print(json.dumps({name: await globals()[name]() for name in names}))


uvloop.run(main(sys.argv[1:]))
