"""Migrations of a database by many processes at once, disturbed in several ways.

The service has four revisions more: 0002 makes a table, 0003 is slow, 0004 leaves the
transaction, 0005 drops the table again. The program prints the outcome of each step.
"""

import asyncio
import json
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

from alembic_processes import alembics
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.migrations.dialect import try_migration_lock
from shop.settings import Settings
from sqlalchemy import column, select, text

AT_ONCE = 16
# All processes connect at once, and a session may be idle for as long as they take.
PATIENT = {
    "database_connect_timeout_seconds": 20,
    "database_acquire_timeout_seconds": 30,
    "database_idle_in_transaction_timeout_seconds": 120,
}
WAITING = "Another migration is running: waiting for it."
AHEAD = "The schema is ahead of this code, at 9999: nothing to migrate."
PARCELS = text("SELECT * FROM parcels")
VERSIONS = select(column("version_num")).select_from(text("alembic_version"))


class Migrations:
    def __init__(self, database, start):
        self.database = database
        self.start = start

    async def run(self, *arguments):
        process = self.start(*arguments)
        return await process.end(), process.output

    async def versions(self):
        async with self.database.read() as session:
            return [*await session.scalars(VERSIONS)]

    async def at_once(self):
        """Sixteen processes, of which one is killed within the slow revision."""
        processes = [self.start("upgrade", "head") for _ in range(AT_ONCE)]
        killed = await first_to_say("slow", processes)
        killed.process.kill()
        others = [each for each in processes if each is not killed]
        return {
            "ends": sorted({await each.end() for each in others}),
            "killed": (await killed.end())[:2],
            "applied": [count(f"-> 000{n},", processes) for n in range(1, 6)],
            "waited": count(WAITING, processes) > 0,
            "versions": await self.versions(),
        }

    async def once_more(self):
        end, output = await self.run("upgrade", "head")
        return [end, "Running" in output, "There is nothing to migrate" in output]

    async def nothing_to_do_while_locked(self):
        commands = ("upgrade", "head"), ("current",), ("check",)
        async with self._lock():
            runs = [self.start(*command) for command in commands]
            ends = [await each.end() for each in runs]
        return [*ends, count(WAITING, runs)]

    async def something_to_do_while_locked(self):
        back, _ = await self.run("downgrade", "-1")
        async with self._lock():
            process = self.start("upgrade", "head")
            await first_to_say(WAITING, [process])
            before = await self.versions()
        return [back, before, await process.end(), await self.versions()]

    async def schema_ahead(self):
        await self._set_version("9999")
        end, output = await self.run("upgrade", "head")
        versions = await self.versions()
        await self._set_version("0005")
        return [end, AHEAD in output, versions]

    async def schema_ahead_after_the_wait(self):
        """The lock was that of a newer release."""
        await self.run("downgrade", "-1")
        async with self._lock():
            process = self.start("upgrade", "head")
            await first_to_say(WAITING, [process])
            await self._set_version("9999")
        end, versions = await process.end(), await self.versions()
        await self._set_version("0004")
        await self.run("upgrade", "head")
        return [end, AHEAD in process.output, versions]

    async def table_in_use(self):
        """By a session that has only read it."""
        await self.run("downgrade", "-1")
        async with self.database.write() as session:
            await session.execute(PARCELS)
            began = monotonic()
            _, output = await self.run("upgrade", "head")
            seconds = monotonic() - began
        end, _ = await self.run("upgrade", "head")
        return [output.splitlines()[-1], seconds > 4.5, end]

    async def writer_at_work(self):
        """SQLite has one writer: the next waits up to a minute, a reader does not."""
        await self.run("downgrade", "-1")
        async with self.database.write() as session:
            await session.execute(PARCELS)
            process = self.start("upgrade", "head")
            looked, _ = await self.run("current")
            waits = await process.lasts(seconds=1)
        return [looked, waits, await process.end(), await self.versions()]

    async def commands(self):
        found = {}
        for command in ("downgrade -1", "upgrade +1", "stamp 0004", "stamp head"):
            end, _ = await self.run(*command.split())
            found[command] = [end, await self.versions()]
        end, output = await self.run("upgrade", "head", "--sql")
        found["--sql"] = [end, "CREATE TABLE parcels" in output]
        end, _ = await self.run("revision", "--autogenerate", "-m", "Add nothing")
        found["revision"] = [end, revisions_that_add_nothing()]
        return found

    @asynccontextmanager
    async def _lock(self):
        async with self.database.engine.connect() as connection:
            with await connection.run_sync(try_migration_lock):
                yield
            await connection.invalidate()  # the lock ends with it

    async def _set_version(self, version):
        async with self.database.write() as session:
            update = text("UPDATE alembic_version SET version_num = :version")
            await session.execute(update, {"version": version})


async def first_to_say(words, processes):
    async with asyncio.timeout(120):
        while True:
            for each in processes:
                if words in each.output:
                    return each
            await asyncio.sleep(0.01)


def revisions_that_add_nothing():
    return len([*Path("migrations", "versions").glob("*_add_nothing.py")])


def count(words, processes):
    return sum(each.output.count(words) for each in processes)


async def main():
    found, seconds = {}, {}
    settings = Settings.load()
    if DIALECT != "sqlite":
        settings = settings.model_copy(update=PATIENT)
    async with open_database(settings) as database, alembics() as start:
        migrations = Migrations(database, start)
        for step in (
            migrations.at_once,
            migrations.once_more,
            migrations.nothing_to_do_while_locked,
            migrations.something_to_do_while_locked,
            migrations.schema_ahead,
            migrations.schema_ahead_after_the_wait,
            migrations.writer_at_work
            if DIALECT == "sqlite"
            else migrations.table_in_use,
            migrations.commands,
        ):
            began = monotonic()
            found[step.__name__] = await step()
            seconds[step.__name__] = round(monotonic() - began, 1)
    print(json.dumps({"found": found, "seconds": seconds}))


if __name__ == "__main__":
    asyncio.run(main())
