"""Ends the server process of a session: before COMMIT, and before a statement."""

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


async def main():
    async with open_database(Settings.load()) as database:
        print(
            await lose(database, statement=False), await lose(database, statement=True)
        )


asyncio.run(main())
