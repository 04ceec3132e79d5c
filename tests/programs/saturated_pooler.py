"""A process that starts while other sessions hold all that a pooler opens."""

import sys
from contextlib import AsyncExitStack

import uvloop
from shop.db import open_database
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import literal, select


async def main(sessions):
    settings = Settings.load()
    async with (
        open_database(settings) as busy,
        open_database(settings) as new,
        AsyncExitStack() as transactions,
    ):
        for _ in range(sessions):
            session = await transactions.enter_async_context(busy.write())
            await session.execute(select(literal(1)))
        try:
            async with new.read() as session:
                await session.scalar(select(literal(1)))
        except Exception as error:
            print(classify(error) or repr(error))
        await transactions.aclose()
        async with new.read() as session:
            print(await session.scalar(select(literal(1))))


uvloop.run(main(int(sys.argv[1])))
