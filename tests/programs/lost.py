"""Ends a session's server process before COMMIT and before a statement, or waits.

Prints what each is called.
"""

import asyncio

from shop.db.faults import classify
from shop.db.session import open_database
from shop.settings import Settings
from sqlalchemy import func, select


async def lose(database, *, statement):
    try:
        async with database.write() as session, database.write() as killer:
            backend = await session.scalar(select(func.pg_backend_pid()))
            await killer.execute(select(func.pg_terminate_backend(backend, 5000)))
            if statement:
                await session.scalar(select(1))
    except Exception as error:
        return classify(error)


async def wait(database):
    try:
        async with database.read() as session:
            await session.scalar(select(func.pg_sleep(60)))
    except Exception as error:
        return classify(error)


async def main():
    async with open_database(Settings.load()) as database:
        print(await lose(database, statement=False))
        print(await lose(database, statement=True))
        print(await wait(database))


asyncio.run(main())
