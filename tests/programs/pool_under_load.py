"""Reads, writes, errors, cancellations and lost sessions at once, and their outcome.

Each worker counts in a row of its own, in two columns by two statements, and inserts a
row for each step: whatever happens, the three must agree. Arguments: the kind of loop,
seconds, seed.
"""

import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from itertools import count
from time import monotonic

import uvloop
from server_sessions import PROBES, Server
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.engine.create import ENGINES
from shop.db.errors import classify
from shop.settings import Settings
from sqlalchemy import insert, select, update
from sqlalchemy.exc import DBAPIError

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WORKERS = range(16)
POOL_SIZE = 5
# Sixteen wait for five, which are killed meanwhile, on a machine that may be busy.
FIVE = {
    "database_pool_size": POOL_SIZE,
    "database_acquire_timeout_seconds": 6,
    "database_connect_timeout_seconds": 5,
    "database_lock_timeout_seconds": 5,
}
KILLED_AT_ONCE, KILL_SECONDS = 2, 0.5
CANCELLED, CANCEL_SECONDS = 0.2, 0.03
# Of the cancelled: they have asked for something that takes a while.
DOZING, DOZE_SECONDS = 0.2, 0.2
# Both sides of an encrypted connection close it, and a ticker rests for a second.
CLOSE_SECONDS = 30


class MixedLoad:
    def __init__(self, database, server, seed):
        self.database = database
        self.server = server
        self.random = random.Random(seed)  # noqa: S311
        self.units = Counter()
        self.faults = Counter()
        self.wrong = Counter(torn=0, stale=0)
        self.slowest = 0.0
        self.numbers = count(len(WORKERS))
        self.undone = set()
        # Steps of each worker: those that are done, and those that may be.
        self.committed = Counter()
        self.uncertain = Counter()

    async def run(self, seconds):
        rows = [{"id": worker, "value": 0, "copy": 0} for worker in WORKERS]
        async with self.database.write() as session:
            await session.execute(insert(PROBES), rows)
        until = monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for worker in WORKERS:
                group.create_task(self.work(worker, until))
            killing = group.create_task(self.kill(until))
        await self.compare()
        return {
            "units": self.units,
            "faults": self.faults,
            "wrong": self.wrong,
            "slowest": self.slowest,
            "server": killing.result(),
        }

    async def work(self, worker, until):
        while monotonic() < until:
            unit = self.random.choice([self.read, self.write, self.fail])
            patience = None
            if self.random.random() < CANCELLED:
                patience = self.random.uniform(0, CANCEL_SECONDS)
                if self.random.random() < DOZING:
                    unit, patience = self.doze, self.random.uniform(0, DOZE_SECONDS)
            began = monotonic()
            try:
                async with asyncio.timeout(patience) as limit:
                    await unit(worker)
                self.units[unit.__name__] += 1
            except ZeroDivisionError:
                self.units[unit.__name__] += 1
            except Exception as error:
                if limit.expired() and isinstance(error, TimeoutError):
                    self.units["cancelled"] += 1
                else:
                    self.faults[str(classify(error) or repr(error))] += 1
            self.slowest = max(self.slowest, monotonic() - began)

    async def read(self, worker):
        row = self.random.choice([worker, self.random.choice(WORKERS)])
        committed = self.committed[row]
        query = select(PROBES.c.value, PROBES.c.copy).where(PROBES.c.id == row)
        async with self.database.read() as session:
            value, copy = (await session.execute(query)).one()
        self.wrong["torn"] += value != copy
        self.wrong["stale"] += value < committed

    async def write(self, worker):
        self.uncertain[worker] += 1
        async with self.database.write() as session:
            await self.step(session, worker, next(self.numbers))
        self.uncertain[worker] -= 1
        self.committed[worker] += 1

    async def fail(self, worker):
        number = next(self.numbers)
        self.undone.add(number)
        async with self.database.write() as session:
            await self.step(session, worker, number)
            raise ZeroDivisionError

    async def doze(self, _):
        """A statement that the server may go on with after its client has left."""
        async with self.database.read() as session:
            await session.scalar(self.server.sleep(DOZE_SECONDS))

    async def step(self, session, worker, number):
        own = update(PROBES).where(PROBES.c.id == worker)
        await session.execute(own.values(value=PROBES.c.value + 1))
        await session.execute(insert(PROBES).values(id=number, value=worker))
        await session.execute(own.values(copy=PROBES.c.copy + 1))

    async def kill(self, until):
        """End sessions, and count them in between."""
        killed, counts = 0, []
        while monotonic() < until:
            sessions = sorted(await self.server.sessions())
            self.random.shuffle(sessions)
            for number in sessions[:KILLED_AT_ONCE]:
                with suppress(DBAPIError):  # it has ended by itself
                    await self.server.kill(number)
                    killed += 1
            next_kill = min(until, monotonic() + KILL_SECONDS)
            while monotonic() < next_kill:
                counts.append(len(await self.server.sessions()))
                await asyncio.sleep(0.02)
        above = sum(number > POOL_SIZE for number in counts) / len(counts)
        return {"killed": killed, "most sessions": max(counts), "above": above}

    async def compare(self):
        async with self.database.read() as session:
            columns = select(PROBES.c.id, PROBES.c.value, PROBES.c.copy)
            rows = (await session.execute(columns)).all()
        steps = Counter(worker for number, worker, _ in rows if number not in WORKERS)
        for worker, value, copy in rows:
            if worker in WORKERS:
                least = self.committed[worker]
                fits = least <= value <= least + self.uncertain[worker]
                self.wrong["counter"] += not (fits and value == copy == steps[worker])
        self.wrong["not undone"] = len(self.undone & {number for number, *_ in rows})


async def hold(database, all_ready):
    async with database.write() as session:
        await session.scalar(select(PROBES.c.id).limit(1))
        await all_ready.wait()


def timers():
    """Those of asyncio's own loop; uvloop does not list them."""
    scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
    return [repr(timer) for timer in scheduled if not timer.cancelled()]


async def main(seconds, seed):
    settings = Settings.load()
    one = settings.model_copy(update={"database_pool_size": 1})
    five = settings.model_copy(update=FIVE)
    async with open_database(one) as direct:
        server = Server(direct, DIALECT)
        await server.create_probes()
        before = set(ENGINES)
        async with open_database(five) as database:
            (engine,) = set(ENGINES) - before
            report = await MixedLoad(database, server, seed).run(seconds)
            all_ready = asyncio.Barrier(POOL_SIZE)
            async with asyncio.timeout(30):
                holders = (hold(database, all_ready) for _ in range(POOL_SIZE))
                await asyncio.gather(*holders)
            pool = engine.sync_engine.pool
            left = {
                "idle": pool.checkedin(),
                "in use": pool.checkedout(),
                "free": pool.gate.free,
                "waiting": pool.gate.waiting,
            }
    until = monotonic() + CLOSE_SECONDS
    while monotonic() < until and (timers() or len(asyncio.all_tasks()) > 1):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    left["timers"] = timers()
    left["tasks"] = len(asyncio.all_tasks() - {asyncio.current_task()})
    print(json.dumps(report | {"left": left}))


with asyncio.Runner(loop_factory=LOOPS[sys.argv[1]]) as runner:
    runner.run(main(float(sys.argv[2]), int(sys.argv[3])))
