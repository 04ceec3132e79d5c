"""Scenarios: reads while a replica or a connection to a replica is in trouble."""

import asyncio
from collections import Counter
from contextlib import suppress
from time import monotonic
from unittest import mock

from replica_servers import (
    FIRST,
    PAUSE,
    RESUME,
    SESSION,
    SLOWLY,
    SOON_SECONDS,
    figures,
    is_read,
    left,
    soon,
    until,
    until_found,
)
from server_sessions import DIALECTS
from shop.db import replica as replica_module
from sqlalchemy.exc import OperationalError

# What has not come by then waits for a limit of the pool or of the connection.
CUT_SECONDS = 2.4


async def silent_replica_holds_nobody_up(lab):
    """Reads in flight and in line move to the primary, new reads begin there."""
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        pool = replica.engine.sync_engine.pool

        in_flight = [
            asyncio.create_task(lab.read(database, what=SLOWLY))
            for _ in range(pool.size())
        ]
        await until_found(lambda: lab.sleeping(FIRST), pool.size())
        in_line = [
            asyncio.create_task(lab.read(database, what=SLOWLY)) for _ in range(3)
        ]
        await until(lambda: pool.waiting() == len(in_line))
        lab.proxies[FIRST].freeze()
        began = monotonic()
        doubt = replica_module.DOUBT_SECONDS
        await until(lambda: replica._look and monotonic() > replica._asked_at + doubt)
        found = {"in doubt": await soon(lab.read(database))}
        for name, tasks in ("in flight", in_flight), ("in line", in_line):
            left = began + CUT_SECONDS - monotonic()
            done, late = await asyncio.wait(tasks, timeout=max(0, left))
            found[name] = {**Counter(task.result() for task in done)}
            await asyncio.gather(*late, return_exceptions=True)
        found |= figures(database)
        later = [await soon(lab.read(database)) for _ in range(5)]
        found["while banned"] = {**Counter(later)}
        lab.proxies[FIRST].heal()
        await until_found(lambda: is_read(lab, database))
        return found


async def lost_line_is_no_trouble(lab):
    """The session in which a replica is looked at can be killed as any other."""
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        async with replica._line.connect() as connection:
            query = f"SELECT {SESSION[lab.dialect]}"
            number = (await connection.exec_driver_sql(query)).scalar_one()
        await lab.kill(FIRST, number)
        # However long it took to kill: else it is asked before its use.
        with mock.patch("shop.db.watch.IDLE_SECONDS", 60):
            await replica.look()
        return {"went": await lab.read(database), **figures(database)}


async def reader_that_leaves_while_it_waits_leaves_nothing(lab):
    async with lab.open(FIRST) as database:
        await lab.tell(FIRST, PAUSE[lab.dialect])
        await lab.write(database)
        for seconds in (0, 0.001, 0.02, 0.1):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await lab.read(database)
        await lab.tell(FIRST, RESUME[lab.dialect])
        await until_found(lambda: is_read(lab, database))
        went = await lab.read(database)
    return {"went": went, "tasks": left()}


async def handler_that_takes_its_time_is_not_sent_to_a_replica_in_trouble(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        await lab.read(database)
        async with database.read() as session:
            lab.proxies[FIRST].freeze()
            await until(lambda: replica.trouble)
            began = monotonic()
            port = await lab.ask(session)
            late = monotonic() - began > SOON_SECONDS
        return {"went": lab.names[port], "late": late, **figures(database)}


async def connection_that_hangs_as_it_begins_holds_nobody_up(lab):
    async with lab.open(FIRST) as database:
        lab.proxies[FIRST].drop_after(rb"(?i)transaction read only")
        async with asyncio.timeout(8):
            return {"went": await lab.read(database), **figures(database)}


async def line_that_hangs_as_it_begins_is_opened_again(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        await replica._line.dispose()
        lab.proxies[FIRST].drop_after(rb"(?i)transaction read only")
        await replica.look()
        await until_found(lambda: is_read(lab, database))
        return {**replica.bans}


async def ban_outlasts_a_look_that_had_begun(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        lab.proxies[FIRST].delay_answers(0.1)
        look = replica.look()
        for _ in range(3):  # many connections can fail at once
            refused = OperationalError(None, None, ConnectionError("refused"))
            replica.is_at_fault(refused)
        await look
        return {"went": await lab.read(database), "bans": sum(replica.bans.values())}


async def nothing_is_left(lab):
    """At the end, also when a replica says nothing."""
    async with lab.open(FIRST) as database:
        everybody = asyncio.Barrier(3)

        async def use():
            async with database.read() as session:
                await lab.ask(session)
                await everybody.wait()

        await asyncio.gather(*(use() for _ in range(3)))
        open_now = await lab.tell(FIRST, DIALECTS[lab.dialect].others)
    await until_found(lambda: lab.has_ended(FIRST, *open_now))
    tasks = left()
    async with lab.open(FIRST) as database:
        await lab.read(database)
        lab.proxies[FIRST].freeze()
        began = monotonic()
    seconds = monotonic() - began
    lab.proxies[FIRST].heal()
    return {"tasks": tasks, "late": seconds > 6}
