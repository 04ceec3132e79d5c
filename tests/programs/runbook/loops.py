"""Databases that are used in another event loop than their own."""

import asyncio
import threading
from contextlib import suppress

from entries import MYSQL, SETTINGS, cures, provokes, read
from shop.db import Database, open_database
from shop.db.engine.create import create_engine
from shop.db.primary import PrimaryOnly
from sqlalchemy import func, select

OTHER = "attached to a different loop"
CLOSED = "Event loop is closed"
# What becomes of two statements at once on one connection.
BUSY = "another operation is in progress"


def left_open():
    engine = create_engine(SETTINGS.server, SETTINGS.limits)
    return Database(engine, SETTINGS, PrimaryOnly(engine))


@provokes(OTHER, on=["asyncpg", *MYSQL])
def use_it_in_another_loop():
    database = left_open()
    with asyncio.Runner() as own, asyncio.Runner() as other:
        own.run(read(database))
        other.run(read(database))


@provokes(CLOSED, on=["asyncpg", *MYSQL])
def close_it_in_the_next_loop():
    database = left_open()
    asyncio.run(read(database))
    asyncio.run(database.engine.dispose())


@provokes(BUSY, on=["asyncpg"])
def use_it_in_the_loop_after_the_next():
    database = left_open()
    asyncio.run(read(database))
    with suppress(RuntimeError):
        asyncio.run(read(database))
    asyncio.run(read(database))


@cures(OTHER, CLOSED, on=["asyncpg", *MYSQL])
@cures(BUSY, on=["asyncpg"])
def open_it_in_each_loop():
    async def main():
        async with open_database(SETTINGS) as database:
            await read(database)

    with asyncio.Runner() as one, asyncio.Runner() as another:
        for runner in (one, another, one):
            runner.run(main())


class Slow:
    """A function of SQL that takes until it is told to end."""

    def __init__(self):
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self):
        self.begun.set()
        self.may_end.wait(10)

    async def select(self, database):
        async with database.engine.connect() as connection:
            raw = await connection.get_raw_connection()
            await raw.driver_connection.create_function("slow", 0, self)
            await connection.execute(select(func.slow()))

    async def start(self, database):
        task = asyncio.create_task(self.select(database))
        assert await asyncio.to_thread(self.begun.wait, 10)
        return task


@provokes(CLOSED, on=["aiosqlite"])
def leave_a_cancelled_task():
    slow = Slow()
    database = left_open()

    async def main():
        task = await slow.start(database)
        task.cancel()

    before = {*threading.enumerate()}
    asyncio.run(main())
    slow.may_end.set()
    for thread in {*threading.enumerate()} - before:
        thread.join(10)


@cures(CLOSED, on=["aiosqlite"])
async def await_a_cancelled_task(database):
    slow = Slow()
    task = await slow.start(database)
    task.cancel()
    slow.may_end.set()
    await asyncio.wait({task})
