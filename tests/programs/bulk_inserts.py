"""Rows that `bulk_insert` loads: a million in little memory, and all or none.

The program prints by how many bytes the memory has grown at its peak, the outcome of
each case, and the state of the pool. Argument: the number of rows.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

import uvloop
from server_sessions import PROBES
from shop.db import bulk_insert, open_database
from shop.db.engine.create import create_unpooled_engine
from shop.settings import Settings
from sqlalchemy import func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateTable

BATCH_SIZE = 1000
FEW = 3 * BATCH_SIZE
PROCESS = Path("/proc/self")


async def load(connection, first, number):
    for start in range(first, first + number, BATCH_SIZE):
        rows = [{"id": start + row, "value": row} for row in range(BATCH_SIZE)]
        await connection.execute(insert(PROBES), rows)


async def succeed(database, first):
    async with bulk_insert(database) as connection:
        await load(connection, first, FEW)


async def fail(database, first):
    async with bulk_insert(database) as connection:
        await load(connection, first, FEW)
        raise ZeroDivisionError


async def fail_and_go_on(database, first):
    """A statement that the caller handles: nothing may be committed after it."""
    async with bulk_insert(database) as connection:
        await load(connection, first, FEW)
        try:
            await connection.execute(insert(PROBES), [{"id": first}])
        except IntegrityError:
            await asyncio.sleep(0)


async def be_cancelled(database, first):
    async with asyncio.timeout(None) as limit, bulk_insert(database) as connection:
        await load(connection, first, FEW)
        limit.reschedule(asyncio.get_running_loop().time())
        await load(connection, first + FEW, 100 * FEW)


async def lose_the_connection(database, first):
    async with bulk_insert(database) as connection:
        await load(connection, first, FEW)
        await connection.invalidate()
        await load(connection, first + FEW, FEW)


async def outcome(database, case, first):
    """The name of the error, and how many rows are there."""
    try:
        await case(database, first)
        error = None
    except Exception as raised:
        error = type(raised).__name__
    query = select(func.count()).select_from(PROBES).where(PROBES.c.id >= first)
    async with database.read() as session:
        return error, await session.scalar(query)


def memory(name):
    text = (PROCESS / "status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) * 1024


async def main(number):
    settings = Settings.load()
    owner = create_unpooled_engine(settings.direct(), settings.limits)
    async with owner.begin() as connection:
        await connection.execute(CreateTable(PROBES))
    async with open_database(settings) as database:
        found, first = {}, 0
        for case in (succeed, fail, fail_and_go_on, be_cancelled, lose_the_connection):
            found[case.__name__] = await outcome(database, case, first)
            first += 1000 * FEW
        # The peak so far is forgotten.
        (PROCESS / "clear_refs").write_text("5")
        before = memory("VmRSS")
        async with bulk_insert(database) as connection:
            await load(connection, first, number)
        growth = memory("VmHWM") - before
        query = select(func.count()).where(PROBES.c.id >= first)
        async with database.read() as session:
            loaded = await session.scalar(query)
        pool = database.engine.sync_engine.pool
        state = [pool.checkedout(), pool.gate.permits - pool.gate.free]
    print(json.dumps({"growth": growth, "loaded": loaded, "pool": state, **found}))


uvloop.run(main(int(sys.argv[1])))
