"""Scenarios: reads while a replica or a connection to a replica fails."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, suppress
from time import monotonic
from unittest import mock

from replica_servers import (
    FIRST,
    PAUSE,
    RESUME,
    SESSION,
    SLOWLY,
    SOON_SECONDS,
    UNHURRIED,
    counts,
    is_read,
    left,
    probed,
    soon,
    until,
    until_found,
)
from server_sessions import DIALECTS
from shop.db.replicas import replica as replica_module
from sqlalchemy.exc import OperationalError

# A silent replica is found out after 1.25 s at most. What has not ended by then waits
# for a limit of the pool or of the connection, which is 10 s at least.
CUT_SECONDS = 8
NEVER_SECONDS = 15


async def fill(engine, number):
    """Open so many connections, and leave them to the pool."""
    everybody = asyncio.Barrier(number)

    async def use():
        async with engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")
            await everybody.wait()

    await asyncio.gather(*(use() for _ in range(number)))


async def silent_replica_delays_no_read(lab):
    """Reads in flight and in the queue move to the primary, new reads begin there."""
    async with lab.open(FIRST, **UNHURRIED) as database, AsyncExitStack() as stack:
        (replica,) = database.router.replicas
        pool = replica.engine.sync_engine.pool
        await fill(replica.engine, pool.size())
        in_flight = [
            asyncio.create_task(lab.read(database, what=SLOWLY))
            for _ in range(pool.size())
        ]
        await until_found(lambda: lab.sleeping(FIRST), pool.size())
        queued = [
            asyncio.create_task(lab.read(database, what=SLOWLY)) for _ in range(3)
        ]
        await until(lambda: pool.gate.waiting == len(queued))
        # Of it the next probe takes all but a moment.
        replica.ready_until = monotonic() + 60
        stack.enter_context(mock.patch.object(replica_module, "BAN_SECONDS", 60))
        lab.proxies[FIRST].freeze()
        began = monotonic()
        late = replica_module.SUSPECT_AFTER_SECONDS
        await until(lambda: replica._probe and monotonic() > replica._probed_at + late)
        found = {"suspect": await soon(lab.read(database))}
        for name, tasks in ("in flight", in_flight), ("queued", queued):
            left = began + CUT_SECONDS - monotonic()
            done, late = await asyncio.wait(tasks, timeout=max(0, left))
            found[name] = {**Counter(task.result() for task in done)}
            await asyncio.gather(*late, return_exceptions=True)
        found |= counts(database)
        later = [await soon(lab.read(database)) for _ in range(5)]
        found["while banned"] = {**Counter(later)}
        replica._banned_until = 0.0
        lab.proxies[FIRST].heal()
        await until_found(lambda: is_read(lab, database))
        return found


async def lost_probe_is_repeated(lab):
    """The session of the probes can be killed as any other."""
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        # However long it takes to kill: else the connection is pinged before its use.
        with mock.patch("shop.db.engine.validation.IDLE_SECONDS", 60):
            async with replica._probes.connect() as connection:
                query = f"SELECT {SESSION[lab.dialect]}"
                number = (await connection.exec_driver_sql(query)).scalar_one()
            await lab.kill(FIRST, number)
            await probed(replica)
        return {"healthy": not replica.unhealthy_reason, **counts(database)}


async def reader_that_leaves_while_it_waits_leaves_nothing(lab):
    async with lab.open(FIRST) as database:
        await lab.execute(FIRST, PAUSE[lab.dialect])
        await lab.write(database)
        for seconds in (0, 0.001, 0.02, 0.1):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await lab.read(database)
        await lab.execute(FIRST, RESUME[lab.dialect])
        await until_found(lambda: is_read(lab, database))
        went = await lab.read(database)
    return {"went": went, "tasks": left()}


async def session_leaves_a_replica_that_was_banned(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        async with database.read() as session:
            went = [await lab.ask(session)]
            lab.proxies[FIRST].freeze()
            await until(lambda: replica.unhealthy_reason)
            began = monotonic()
            went.append(await lab.ask(session))
            late = monotonic() - began > SOON_SECONDS
        names = [lab.names[port] for port in went]
        return {"went": names, "late": late, **counts(database)}


async def connection_that_hangs_as_it_begins_delays_no_read(lab):
    async with lab.open(FIRST) as database:
        lab.proxies[FIRST].drop_after(rb"(?i)transaction read only")
        async with asyncio.timeout(NEVER_SECONDS):
            return {"went": await lab.read(database), **counts(database)}


async def probe_that_hangs_as_it_connects_is_repeated(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        if replica._probe:
            await asyncio.wait({replica._probe})
        await replica._probes.dispose()
        lab.proxies[FIRST].drop_after(rb"(?i)transaction read only")
        await probed(replica)
        with mock.patch.object(replica_module, "PROBE_TIMEOUT_SECONDS", 20):
            await until_found(lambda: is_read(lab, database))
        return {**+replica.bans}


async def ban_outlasts_a_probe_that_had_begun(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        if replica._probe:
            await asyncio.wait({replica._probe})
        lab.proxies[FIRST].delay_answers(0.1)
        replica.probe()
        probe = replica._probe
        with mock.patch.object(replica_module, "BAN_SECONDS", 60):
            for _ in range(3):  # many connections can fail at once
                refused = OperationalError(None, None, ConnectionError("refused"))
                replica.report_error(refused)
        await probe
        return {"went": await lab.read(database), "bans": sum(replica.bans.values())}


async def nothing_is_left(lab):
    """At the end, also when a replica says nothing."""
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        await fill(replica.engine, 3)
        open_now = await lab.execute(FIRST, DIALECTS[lab.dialect].others)
    await until_found(lambda: lab.has_ended(FIRST, *open_now))
    tasks = left()
    async with lab.open(FIRST) as database:
        await lab.read(database)
        lab.proxies[FIRST].freeze()
        began = monotonic()
    seconds = monotonic() - began
    lab.proxies[FIRST].heal()
    return {"tasks": tasks, "late": seconds > NEVER_SECONDS}
