"""Prints what a process gets that starts while exports hold all that a pooler opens."""

import sys
from contextlib import AsyncExitStack

import uvloop
from shop.db.bulk import export
from shop.db.faults import classify
from shop.db.session import open_database
from shop.settings import Settings
from sqlalchemy import literal, select


async def main(sessions):
    settings = Settings.load()
    async with (
        open_database(settings) as busy,
        open_database(settings) as new,
        AsyncExitStack() as exports,
    ):
        for _ in range(sessions):
            await exports.enter_async_context(export(busy))
        try:
            async with new.read() as session:
                await session.scalar(select(literal(1)))
        except Exception as error:
            print(classify(error) or repr(error))
        await exports.aclose()
        async with new.read() as session:
            print(await session.scalar(select(literal(1))))


uvloop.run(main(int(sys.argv[1])))
