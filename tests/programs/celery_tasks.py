"""Tasks for a worker to include.

The program publishes a number of tasks of a kind, and prints how many of them the
broker has taken.
"""

import asyncio
import logging
import os
import signal
import sys
import time

from shop.db import Database, open_database
from shop.db.doctor.role import SESSION_ID_QUERY
from shop.features import CONFIGURE
from shop.settings import Settings
from shop.worker import app
from shop.worker.app import celery, task
from sqlalchemy import column, literal, select, table, text

DONE = table("done", column("task"), column("pid"), column("session"))

logger = logging.getLogger(__name__)


@task()
async def count(database: Database, number: int) -> None:
    """A task of two units: a read and, after it, a write."""
    async with database.read() as session:
        await session.scalar(select(literal(1)))
    async with database.write() as session:
        mine = await session.scalar(text(SESSION_ID_QUERY))
        row = {"task": number, "pid": os.getpid(), "session": mine}
        await session.execute(DONE.insert().values(row))


@task()
async def stay(database: Database, number: int) -> None:
    """In a transaction, until the task is ended."""
    async with database.write() as session:
        await session.execute(DONE.insert().values(task=number))
        await asyncio.Event().wait()


@task(max_retries=1)
async def crash(_: Database, number: int) -> None:
    logger.info("crash %d", number)
    os.kill(os.getpid(), signal.SIGKILL)


@task()
async def fail(database: Database, _: int) -> None:
    """An error that a retry cannot mend."""
    async with database.write() as session:
        await session.execute(text("DO $$ BEGIN RAISE unique_violation; END $$"))


@task()
async def exit_process(_: Database, __: int) -> None:
    sys.exit("enough")


@task()
async def block(_: Database, __: int) -> None:
    """Without an `await`: nothing on the loop can interrupt it."""
    time.sleep(60)  # noqa: ASYNC251


@task()
async def find(database: Database, number: int) -> None:
    async with database.read() as session:
        query = select(DONE.c.task).where(DONE.c.task == number)
        found = await session.scalar(query)
    logger.info("found" if found == number else "not found")


async def write_and_find(settings: Settings, number: int) -> None:
    async with open_database(settings) as database:
        for each in range(number):
            async with database.write() as session:
                await session.execute(DONE.insert().values(task=each))
            await find.enqueue(each)


async def ask_for(number: int, kind: str) -> None:
    app.PUBLISH_SECONDS = 60  # for a machine that is busy
    settings = Settings.load()
    for configure in CONFIGURE:
        configure(settings)
    if kind == "find":
        await write_and_find(settings, number)
    elif kind == "unknown":
        celery.send_task("celery_tasks.unknown")
    else:
        ask, taken = globals()[kind].enqueue, 0
        # In parts: each has a few seconds for its way to the broker.
        for first in range(0, number, 50):
            part = range(first, min(first + 50, number))
            taken += sum(await asyncio.gather(*map(ask, part)))
        print(taken)


if __name__ == "__main__":
    import celery_tasks  # by the name that the worker knows it by

    asyncio.run(celery_tasks.ask_for(int(sys.argv[1]), sys.argv[2]))
