"""Uses of a database that falls silent: the seconds and the outcome of each.

The program prints "open" and waits for a line, so that the answer to the next COMMIT
can be lost; "ready", so that the database can fall silent; "done", so that the database
can recover; then the outcomes. Argument: the URL of the way on which nothing is lost.
"""

import asyncio
import json
import sys
from time import monotonic

import uvloop
from pydantic import SecretStr
from server_sessions import PROBES, Server
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import insert, select

IDLE, BUSY = 5, 6  # connections of the pool that is left idle, of the one in use
# What begins lasts until the silence, however late that is.
PATIENT = {
    "database_pool_size": BUSY,
    "database_statement_timeout_seconds": 60,
    "database_client_timeout_seconds": 6,
}
# Longer than a connection may be idle without being asked whether it is still there.
IDLE_SECONDS = 1.1
# What has not ended by then never will.
NEVER_SECONDS = 20
# The rows that are written.
WITHOUT_AN_ANSWER, COMMITTED, ROLLED_BACK, CANCELLED = range(4)


async def ended(use):
    """When, and how."""
    try:
        await use
        outcome = "well"
    except ZeroDivisionError:
        outcome = "rolled back"
    except asyncio.CancelledError:
        outcome = "cancelled"
    except Exception as error:
        outcome = str(classify(error) or repr(error))
    return monotonic(), outcome


async def results(tasks, since):
    """Seconds and outcome of each."""
    done, _ = await asyncio.wait(tasks, timeout=NEVER_SECONDS)
    ends = [task.result() if task in done else (monotonic(), "never") for task in tasks]
    return [[round(end - since, 2), outcome] for end, outcome in ends]


async def reads(database, number):
    since = monotonic()
    tasks = [asyncio.create_task(ended(read(database))) for _ in range(number)]
    return await results(tasks, since)


async def read(database):
    async with database.read() as session:
        await session.scalar(select(1))


async def fill(database, size):
    """Use the whole pool at once, and leave it idle."""

    async def use():
        async with database.engine.connect() as connection:
            await connection.scalar(select(1))
            await everybody.wait()

    everybody = asyncio.Barrier(size)
    await asyncio.gather(*(use() for _ in range(size)))


class InFlight:
    """A use of each connection of a pool: they have begun, and cannot end."""

    def __init__(self, database, server):
        self.database = database
        self.server = server
        self.has_written = asyncio.Barrier(3)
        self.is_silent = asyncio.Event()

    async def begin(self):
        uses = {
            "commit without an answer": self.write(WITHOUT_AN_ANSWER),
            "statement": self.sleep(),
            "cancelled read": self.sleep(),
            "cancelled write": self.write_and_sleep(CANCELLED),
            "commit": self.write_and_wait(COMMITTED),
            "rollback": self.write_and_wait(ROLLED_BACK),
        }
        self.tasks = {
            name: asyncio.create_task(ended(use), name=name)
            for name, use in uses.items()
        }
        await self.has_written.wait()
        await until(self.are_sleeping)
        await until(self.has_committed)

    async def end(self, since):
        self.is_silent.set()
        for name in ("cancelled read", "cancelled write"):
            self.tasks[name].cancel()
        found = await results([*self.tasks.values()], since)
        return {name: [one] for name, one in zip(self.tasks, found, strict=True)}

    async def sleep(self):
        async with self.database.read() as session:
            await session.scalar(self.server.sleep(60))

    async def write(self, number):
        async with self.database.write() as session:
            await session.execute(insert(PROBES).values(id=number))

    async def write_and_sleep(self, number):
        async with self.database.write() as session:
            await session.execute(insert(PROBES).values(id=number))
            await session.execute(self.server.sleep(60))

    async def write_and_wait(self, number):
        async with self.database.write() as session:
            await session.execute(insert(PROBES).values(id=number))
            await self.has_written.wait()
            await self.is_silent.wait()
            if number == ROLLED_BACK:
                raise ZeroDivisionError

    async def are_sleeping(self):
        return len(await self.server.sleeping()) == 3

    async def has_committed(self):
        return WITHOUT_AN_ANSWER in await self.server.rows()


async def until(condition):
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def say(word):
    print(word, flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def main(direct_url):
    settings = Settings.load()
    async with (
        open_database(Settings(database_url=SecretStr(direct_url))) as direct,
        open_database(settings.model_copy(update={"database_pool_size": IDLE})) as idle,
        open_database(settings.model_copy(update=PATIENT)) as busy,
    ):
        server = Server(direct, DIALECT)
        await server.create_probes()
        await fill(idle, IDLE)
        await fill(busy, BUSY)
        await say("open")

        in_flight = InFlight(busy, server)
        await asyncio.sleep(IDLE_SECONDS)
        async with asyncio.timeout(30):
            await in_flight.begin()
        await say("ready")

        ending = asyncio.create_task(in_flight.end(monotonic()))
        found = {"10 reads": await reads(idle, 10), "5 reads": await reads(idle, 5)}
        found |= await ending
        await say("done")

        found["10 reads later"] = await reads(idle, 10)
        found["10 reads on new connections"] = await reads(busy, 10)
        rows = await server.rows()
        found["rows"] = {
            "without an answer": WITHOUT_AN_ANSWER in rows,
            "rolled back": ROLLED_BACK in rows,
            "cancelled": CANCELLED in rows,
        }
    print(json.dumps(found))


uvloop.run(main(sys.argv[1]))
