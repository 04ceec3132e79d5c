"""Logins by a token, one for each line of input.

The program prints the token, which the test makes the password of its user. For each
line the database is opened anew and some connections are used at once; the output has
the outcome, and how often the loop was free for other work meanwhile.
"""

import asyncio
import json
import sys
from contextlib import suppress

from shop.db import open_database
from shop.db.errors import classify, safe_message
from shop.settings import Settings

TICK_SECONDS = 0.01


async def count(ticks):
    while True:
        await asyncio.sleep(TICK_SECONDS)
        ticks.append(1)


async def use(settings):
    try:
        async with open_database(settings) as database:
            await asyncio.gather(*(database.ping() for _ in range(3)))
    except Exception as error:
        return [classify(error), safe_message(error)]
    return ["connected", ""]


async def main():
    settings = Settings.load()
    if "token" in sys.argv:
        print(await settings.password(), flush=True)
    if "warm" in sys.argv:  # the vendor's library takes its time at first
        with suppress(ConnectionError):
            await settings.password()
    for _ in sys.stdin:
        ticks = []
        counter = asyncio.create_task(count(ticks))
        outcome = await use(settings)
        counter.cancel()
        print(json.dumps([*outcome, len(ticks)]), flush=True)


asyncio.run(main())
