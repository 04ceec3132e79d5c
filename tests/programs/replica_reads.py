"""Scenarios: where the reads of a session go, what they have seen, what they cost."""

import asyncio
from itertools import pairwise
from time import monotonic

from replica_servers import (
    FIRST,
    PAUSE,
    PORT,
    PRIMARY,
    RESUME,
    SESSION,
    SLOWLY,
    figures,
    is_read,
    soon,
    until_found,
)
from server_sessions import PROBES
from shop.db import replicas as replicas_module
from shop.db import session as session_module
from shop.db.faults import classify
from shop.db.position import SEEN, Seen
from sqlalchemy import event, insert
from sqlalchemy.exc import DBAPIError, OperationalError

# Between two questions to the primary where it is.
SAMPLE_SECONDS = replicas_module.SAMPLE_SECONDS
IDLE_SECONDS = 1.1
READ_ONLY = {1792}  # the others say 25006


async def session_stays_on_one_server(lab):
    used = [[], []]
    async with lab.open(*range(FIRST, FIRST + lab.number)) as database:
        for _ in range(6):
            async with database.read() as session:
                for what, found in zip((PORT, SESSION), used, strict=True):
                    found.append({await lab.ask(session, what=what) for _ in range(3)})
    ports = set().union(*used[0])
    return {
        "torn": sum(len(each) > 1 for found in used for each in found),
        "not read": lab.number - len(ports),
    }


async def killed_session_moves_to_the_primary(lab):
    async with lab.open(FIRST) as database:
        async with database.read() as session:
            went = [await lab.ask(session)]
            await lab.kill(FIRST, await lab.ask(session, what=SESSION))
            went += [await lab.ask(session) for _ in range(2)]
        names = [*(lab.names[port] for port in went), await lab.read(database)]
        sessions = sum(database.replicas.reads.values())
        return {"went": names, "sessions": sessions, **figures(database)}


async def name_that_leads_to_a_standby_is_asked_once_a_second(lab):
    async with lab.open(FIRST) as database:
        pool = database.engine.sync_engine.pool
        opened = []
        event.listen(
            database.engine.sync_engine,
            "connect",
            lambda *_: opened.append(monotonic()),
        )
        primary = lab.proxies[PRIMARY]
        primary.lead_to("127.0.0.1", lab.ports[FIRST])
        primary.break_connections()
        end = monotonic() + 4.5
        while monotonic() < end:
            await lab.read(database)
            await asyncio.sleep(0.05)
        primary.lead_to("127.0.0.1", lab.ports[PRIMARY])
        pauses = [after - before for before, after in pairwise(opened)]
        return {
            "asked again": len(pauses) > 0,
            "hasty": any(pause < SAMPLE_SECONDS / 2 for pause in pauses),
            "same pool": database.engine.sync_engine.pool is pool,
        }


async def statement_that_takes_too_long_is_not_repeated(lab):
    async with lab.open(FIRST) as database:
        try:
            outcome = await lab.read(database, what=SLOWLY)
        except DBAPIError as error:
            outcome = classify(error)
        return {"outcome": outcome, **figures(database)}


async def statement_in_the_way_of_the_replay_moves_to_the_primary(lab):
    rows = "(SELECT count(*) FROM probes) AS rows"
    query = {lab.dialect: f"inet_server_port() FROM pg_sleep(1.2), {rows}"}
    await lab.tell(FIRST, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await lab.tell(FIRST, "SELECT pg_reload_conf()")
    async with lab.open(FIRST) as database:
        await lab.write(database)
        SEEN.set(None)
        task = asyncio.create_task(lab.read(database, what=query))
        await until_found(lambda: lab.sleeping(FIRST))
        await lab.tell(PRIMARY, "DELETE FROM probes")
        await lab.tell(PRIMARY, "VACUUM probes")
        went = await task
        await lab.tell(FIRST, "ALTER SYSTEM RESET max_standby_streaming_delay")
        await lab.tell(FIRST, "SELECT pg_reload_conf()")
        return {"went": went, **figures(database)}


async def replica_is_not_written_to(lab):
    """Not even one that would take it, as if it had been promoted."""
    async with lab.open(PRIMARY, trouble="primary") as database:
        (replica,) = database.replicas
        async with replica.engine.connect() as connection:
            try:
                await connection.execute(insert(PROBES).values(id=-next(lab.numbers)))
            except DBAPIError as error:
                number = error.orig.args[0]
                code = number if number in READ_ONLY else error.orig.sqlstate
                return {"refused": code}


async def nobody_waits_for_a_replica_that_is_far_behind(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        replica._max_lag_seconds = 60  # and is not banned for that
        await lab.tell(FIRST, PAUSE[lab.dialect])
        await lab.write(database)
        first = await soon(lab.read(database))
        await until_found(lambda: is_behind(lab, database, 0.25))
        waits = []
        for _ in range(3):
            began = monotonic()
            await lab.read(database)
            waits.append(monotonic() - began)
        found = {"went": first, "late": min(waits) > 0.15}
        await lab.tell(FIRST, RESUME[lab.dialect])
        await until_found(lambda: is_read(lab, database))
        return found


async def is_behind(lab, database, seconds):
    await lab.read(database)
    return [each for each in database.replicas if each.lag_seconds > seconds]


async def commit_without_a_position_is_no_lag(lab):
    def fail(*_):
        raise OperationalError(None, None, ConnectionError("lost"))

    async with lab.open(FIRST) as database:
        right, session_module.read_written = session_module.read_written, fail
        await lab.write(database)
        session_module.read_written = right
        went = [await lab.read(database)]
        SEEN.set(None)
        end = monotonic() + 1.5
        while monotonic() < end:
            await lab.read(database)
            await asyncio.sleep(0.1)
        return {"went": [*went, await lab.read(database)], **figures(database)}


async def position_stays_with_its_task(lab):
    """Of a task that serves no request, from its first commit on."""
    async with lab.open(FIRST) as database:
        await lab.tell(FIRST, PAUSE[lab.dialect])

        async def write_and_read():
            SEEN.set(None)
            await lab.write(database)
            return await lab.read(database), bool(SEEN.get())

        async def other():
            SEEN.set(None)
            await asyncio.sleep(0.1)
            return await lab.read(database), bool(SEEN.get())

        found = await asyncio.gather(write_and_read(), other())
        await lab.tell(FIRST, RESUME[lab.dialect])
        return found


async def uses_take_so_many_round_trips(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.replicas
        # No look shall be counted.
        replica._fresh_until, replica.look = float("inf"), lambda: None
        database.replicas._sampled_at = float("inf")
        counted = {}
        for use in (lab.read, lab.write):
            await use(database)  # asyncpg prepares a statement when it is new
            counted[use.__name__] = await round_trips(lab, use(database))
        SEEN.set(Seen({**replica._position}))
        counted["read of what is there"] = await round_trips(lab, lab.read(database))
        SEEN.set(None)
        await asyncio.sleep(IDLE_SECONDS)
        counted["read after a pause"] = await round_trips(lab, lab.read(database))
    async with lab.open() as database:
        for _ in range(2):
            alone = await round_trips(lab, lab.write(database))
    return {**counted, "write without replicas": alone}


async def round_trips(lab, use):
    for proxy in lab.proxies:
        proxy.reset()
    await use
    return sum(proxy.round_trips for proxy in lab.proxies)
