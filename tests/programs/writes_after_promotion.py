"""The errors of writes to a replica that was read from and has become a primary.

The program prints "ready" and waits for a line; then it prints what the server answers
to a write, on the connections from before and on a new one.
"""

import asyncio
import json
import sys

import uvloop
from shop.db import open_database
from shop.settings import Settings
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError


async def refusal(connection):
    try:
        await connection.execute(text("UPDATE orders SET customer = 'wrong'"))
    except DBAPIError as error:
        number = error.orig.args[0]
        return number if isinstance(number, int) else error.orig.sqlstate


async def main():
    async with open_database(Settings.load()) as database:
        (replica,) = database.router.replicas
        while replica.unhealthy_reason:
            replica.probe()  # again, if the first was too late
            await asyncio.sleep(0.01)
        async with replica.engine.connect() as one, replica.engine.connect() as other:
            for connection in (one, other):
                await connection.exec_driver_sql("SELECT 1")
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.readline)
            refused = [await refusal(one), await refusal(other)]
        async with replica.engine.connect() as connection:
            refused.append(await refusal(connection))
    print(json.dumps(refused))


uvloop.run(main())
