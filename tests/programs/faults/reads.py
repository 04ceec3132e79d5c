"""Reads of 10 clients while all sessions of the service are ended, four times.

The program prints the answers by status, the number of sessions that were ended each
time, and what the pool is left with.
"""

import asyncio
import json
import logging
from collections import Counter
from contextlib import suppress

import uvloop
from rows import ORDER, UNHURRIED, current, laboratory, serving, until
from shop.web.logs import configure_logging
from sqlalchemy.exc import DBAPIError

CLIENTS, TIMES = 10, 4
# Of each client before the next end: none of its reads can be lost a second time.
READS_BETWEEN = 2


class Readers:
    def __init__(self, client, paths):
        self.client = client
        self.paths = paths
        self.statuses = Counter()
        self.answered = [0] * CLIENTS
        self.have_ended = False

    async def read(self, number):
        while not self.have_ended:
            path = self.paths[self.answered[number] % len(self.paths)]
            answer = await self.client.get(path)
            self.statuses[answer.status_code] += 1
            self.answered[number] += 1

    async def have_read(self, before):
        pairs = zip(self.answered, before, strict=True)
        return all(now >= then + READS_BETWEEN for now, then in pairs)


async def end_all(server):
    sessions = await server.sessions()
    for number in sessions:
        with suppress(DBAPIError):  # it has ended by itself
            await server.kill(number)

    async def are_gone():
        return not sessions & await server.sessions()

    await until(are_gone)
    return len(sessions)


async def main():
    configure_logging("WARNING")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    current.set("reads")
    ended = []
    async with laboratory() as lab, serving(**UNHURRIED) as client:
        client.repeat_late_reads()
        created = (await client.post("/orders", json=ORDER)).json()
        readers = Readers(client, [f"/orders/{created['id']}", "/orders"])
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(readers.read(number))
            for _ in range(TIMES):
                await until(readers.have_read, [*readers.answered])
                ended.append(await end_all(lab.server))
            await until(readers.have_read, [*readers.answered])
            readers.have_ended = True
        pool = client.engine.pool
        left = [pool.checkedout(), pool.gate.permits - pool.gate.free]
    print(json.dumps({"statuses": readers.statuses, "ended": ended, "pool": left}))


uvloop.run(main())
