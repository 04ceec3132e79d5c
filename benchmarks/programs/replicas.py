"""Prints what reading from replicas costs: CPU of a read, and waiting for a write.

Runs in the environment of a service that was rendered with replicas, whose package is
`service`, on a primary and a standby that are idle. Both kinds of reads take turns on
one loop, and the best round of each counts.
"""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found"

import asyncio
import json
import sys
from statistics import median
from time import perf_counter, process_time

import uvloop
from service.db import Database, open_database
from service.db.engine.create import create_engine
from service.db.primary import PrimaryOnly
from service.settings import Settings
from sqlalchemy import select, text

KEPT = select(text("1"))
ROUNDS, READS, WRITES = (int(argument) for argument in sys.argv[1:])


async def cpu(database: Database) -> float:
    """Microseconds of a read."""
    began = process_time()
    for _ in range(READS):
        async with database.read() as session:
            await session.execute(KEPT)
    return (process_time() - began) / READS * 1e6


async def seconds_until_seen(database: Database) -> float:
    """From the commit to the end of a read that has it."""
    async with database.write() as session:
        await session.execute(text("INSERT INTO ticks DEFAULT VALUES"))
    began = perf_counter()
    async with database.read() as session:
        await session.execute(KEPT)
    return perf_counter() - began


async def main() -> None:
    settings = Settings.load()
    primary = create_engine(settings.server, settings.limits, pool="alone")
    alone = Database(primary, settings, PrimaryOnly(primary))
    best = {"primary alone": float("inf"), "replica": float("inf")}
    async with open_database(settings) as routed:
        async with routed.write() as session:
            await session.execute(text("CREATE TABLE ticks (id SERIAL)"))
        replicas = routed.router.replicas
        while not sum(1 for each in replicas if not each.unhealthy_reason):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _ in range(ROUNDS):
            best["primary alone"] = min(best["primary alone"], await cpu(alone))
            best["replica"] = min(best["replica"], await cpu(routed))
        waits = [await seconds_until_seen(routed) for _ in range(WRITES)]
    await primary.dispose()
    print(json.dumps({**best, "wait": median(waits) * 1000}))


uvloop.run(main())
