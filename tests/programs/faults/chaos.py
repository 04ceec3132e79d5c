"""2,000 requests of 20 clients while sessions are killed, each compared with the table.

SQLite has no sessions to kill: another writer keeps its lock instead. The program
prints the answers by status, what the table says otherwise, and what the pool is left
with. Argument: a seed.
"""

import asyncio
import json
import logging
import random
import sys
from collections import Counter
from contextlib import suppress
from itertools import count

import uvloop
from rows import CANARY, UNHURRIED, adds, current, laboratory, serving
from shop.db import Snapshot
from shop.db.config.backend import DIALECT
from shop.models import Order, OrderLine
from shop.web.logs import configure_logging
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

CLIENTS, REQUESTS = 20, 100
KILL_SECONDS, LOCK_SECONDS = 0.5, 0.5
LIMITS = UNHURRIED | {"database_pool_size": 8, "database_lock_timeout_seconds": 0.4}
LINES = [{"sku": sku, "quantity": 1, "price_cents": 1} for sku in ("tea", "milk")]
UNKNOWN, NOTHING_CHANGED = 504, 503


async def totals(session: Snapshot) -> list[int]:
    """One state: each order has two lines."""
    orders = await session.scalar(select(func.count()).select_from(Order))
    lines = await session.scalar(select(func.count()).select_from(OrderLine))
    return [orders, lines]


class Clients:
    """What the answers promise: names of orders that are there, and that are not."""

    def __init__(self, client, seed):
        self.client = client
        self.random = random.Random(seed)  # noqa: S311
        self.numbers = count()
        self.statuses = Counter()
        self.there, self.gone = set(), set()
        # Two states of which one is true: names that are there, names that are not.
        self.either = []
        self.torn = 0

    async def run(self):
        own = {}
        for _ in range(REQUESTS):
            kinds = [self.create, self.find, self.look, self.import_some]
            if own:
                kinds += [self.change, self.change, self.delete]
            await self.random.choice(kinds)(own)
        self.there |= set(own.values())

    async def ask(self, method, path, **options):
        answer = await self.client.request(method, path, **options)
        self.statuses[answer.status_code] += 1
        return answer

    def name(self):
        return f"{CANARY} {next(self.numbers)}"

    async def create(self, own):
        name = self.name()
        new = {"customer": name, "lines": LINES}
        answer = await self.ask("POST", "/orders", json=new)
        if answer.is_success:
            own[answer.json()["id"]] = name
        elif answer.status_code == NOTHING_CHANGED:
            self.gone.add(name)
        else:
            self.either.append(({name}, set()))

    async def import_some(self, _):
        names = {self.name() for _ in range(3)}
        new = [{"customer": name, "lines": LINES} for name in names]
        answer = await self.ask("POST", "/orders/import", json=new)
        if answer.is_success:
            self.there |= names
        elif answer.status_code == NOTHING_CHANGED:
            self.gone |= names
        else:
            self.either.append((names, set()))

    async def change(self, own):
        order, old = self.random.choice(sorted(own.items()))
        new = self.name()
        path = f"/orders/{order}"
        answer = await self.ask("PATCH", path, json={"customer": new})
        if answer.is_success:
            own[order] = new
            self.gone.add(old)
        elif answer.status_code == NOTHING_CHANGED:
            self.gone.add(new)
        else:
            del own[order]
            self.either.append(({old}, {new}))

    async def delete(self, own):
        order, name = self.random.choice(sorted(own.items()))
        answer = await self.ask("DELETE", f"/orders/{order}")
        if answer.status_code != NOTHING_CHANGED:
            del own[order]
        if answer.is_success:
            self.gone.add(name)
        elif answer.status_code == UNKNOWN:
            self.either.append(({name}, set()))

    async def find(self, _):
        await self.ask("GET", "/orders", params={"limit": 5})

    async def look(self, _):
        answer = await self.ask("POST", "/totals")
        if answer.is_success:
            orders, lines = answer.json()
            self.torn += lines != 2 * orders

    def wrong(self, names):
        """What the table says otherwise."""
        unclear = [
            [sorted(one), sorted(other)]
            for one, other in self.either
            if not (one <= names and not other & names)
            and not (other <= names and not one & names)
        ]
        return {
            "missing": sorted(self.there - names),
            "there": sorted(self.gone & names),
            "unclear": unclear,
            "torn": self.torn,
        }


async def disturb(lab, rng, disturbances):
    while True:
        with suppress(DBAPIError):  # gone by itself
            if DIALECT == "sqlite":
                async with lab.database.write() as session:
                    await session.execute(adds(f"{CANARY} {len(disturbances)}"))
                    await asyncio.sleep(LOCK_SECONDS)
                disturbances.append(1)
            elif sessions := sorted(await lab.server.sessions()):
                await lab.server.kill(rng.choice(sessions))
                disturbances.append(1)
        await asyncio.sleep(KILL_SECONDS)


async def main(seed):
    configure_logging("WARNING")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    current.set("chaos")
    disturbances = []
    async with laboratory() as lab, serving(totals, **LIMITS) as client:
        clients = Clients(client, seed)
        killer = asyncio.create_task(
            disturb(lab, random.Random(seed), disturbances)  # noqa: S311
        )
        await asyncio.gather(*(clients.run() for _ in range(CLIENTS)))
        killer.cancel()
        with suppress(asyncio.CancelledError):
            await killer
        client.repeat_late_reads()
        after = Counter()
        for _ in range(20):
            after[(await client.get("/orders")).status_code] += 1
        async with lab.database.read() as session:
            names = set(await session.scalars(select(Order.customer)))
        pool = client.engine.pool
        report = {
            "statuses": clients.statuses,
            "wrong": clients.wrong(names),
            "disturbances": len(disturbances),
            "after": after,
            "pool": [pool.checkedout(), pool.gate.permits - pool.gate.free],
        }
    print(json.dumps(report))


uvloop.run(main(int(sys.argv[1])))
