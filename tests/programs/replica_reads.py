"""Scenarios: where the reads of a session go, what they find, what they cost."""

import asyncio
import logging
from time import monotonic
from unittest import mock

from replica_servers import (
    FIRST,
    PATIENT,
    PAUSE,
    PORT,
    PRIMARY,
    RESUME,
    SESSION,
    SLOWLY,
    counts,
    is_read,
    soon,
    until_found,
)
from server_sessions import PROBES
from shop.db.errors import classify
from shop.db.replicas import router as router_module
from shop.db.replicas.watermark import ReadWatermark, current_watermark
from sqlalchemy import event, insert
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.support.proxy import Proxy

SAMPLE_SECONDS = router_module.PRIMARY_SAMPLE_INTERVAL_SECONDS
IDLE_SECONDS = 1.1
# A wait for a replica takes 0.2 s.
AT_ONCE_SECONDS = 0.15
PATIENCE_SECONDS = 10
READ_ONLY = {1792}  # the others say 25006


def without_pings():
    """However long a busy machine lets a connection rest."""
    return mock.patch("shop.db.engine.validation.IDLE_SECONDS", 3600)


async def session_stays_on_one_server(lab):
    used = []
    async with lab.open(*range(FIRST, FIRST + lab.number)) as database:
        for _ in range(6):
            async with database.read() as session:
                used.append({await lab.ask(session, what=PORT) for _ in range(3)})
        # Those that a busy machine was too slow to probe went to the primary.
        await until_found(lambda: ports_of_replicas(lab, database, used), lab.number)
    return {"torn": sum(len(each) > 1 for each in used)}


async def ports_of_replicas(lab, database, used):
    async with database.read() as session:
        used.append({await lab.ask(session, what=PORT) for _ in range(3)})
    return {port for port in set().union(*used) if lab.names[port] == "replica"}


async def killed_session_moves_to_the_primary(lab):
    async with lab.open(FIRST) as database:
        with without_pings():
            async with database.read() as session:
                went = [await lab.ask(session)]
                await lab.kill(FIRST, await lab.ask(session, what=SESSION))
                went += [await lab.ask(session) for _ in range(2)]
        names = [lab.names[port] for port in went]
        sessions = sum(database.router.reads.values())
        found = {"went": names, "sessions": sessions, **counts(database)}
        await until_found(lambda: is_read(lab, database))
        return found


async def failover_is_logged(lab):
    """The first of two ways to the primary ends."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(
        [record.getMessage(), record.primary, record.was]
    )
    logging.getLogger("shop.db.replicas.failover").addHandler(handler)
    first = lab.proxies[PRIMARY]
    with Proxy("127.0.0.1", lab.ports[PRIMARY]) as second:
        async with lab.open(failover_port=second.port) as database:
            await lab.write(database)
            first.refuse()
            first.break_connections()
            await until_found(lambda: is_written(lab, database))
        names = {f"127.0.0.1:{first.port}": "first"}
        names[f"127.0.0.1:{second.port}"] = "second"
    for address, name in names.items():
        lines = [[each.replace(address, name) for each in line] for line in lines]
    return lines


async def is_written(lab, database):
    try:
        await lab.write(database)
    except DBAPIError:
        return []
    return [True]


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
        began = monotonic()
        while (seconds := monotonic() - began) < 4.5 or len(opened) < 2:
            if seconds > PATIENCE_SECONDS:
                break
            await lab.read(database)
            await asyncio.sleep(0.05)
        primary.lead_to("127.0.0.1", lab.ports[PRIMARY])
        return {
            "asked again": len(opened) > 1,
            "hasty": len(opened) > seconds / SAMPLE_SECONDS + 2,
            "same pool": database.engine.sync_engine.pool is pool,
        }


async def statement_that_takes_too_long_is_not_repeated(lab):
    # Well before the limit of the client, on a machine that may be busy.
    async with lab.open(FIRST, database_statement_timeout_seconds=1.2) as database:
        try:
            outcome = await lab.read(database, what=SLOWLY)
        except DBAPIError as error:
            outcome = classify(error)
        return {"outcome": outcome, **counts(database)}


async def statement_in_the_way_of_the_replay_moves_to_the_primary(lab):
    rows = "(SELECT count(*) FROM probes) AS rows"
    query = {lab.dialect: f"{SLOWLY[lab.dialect]} FROM {rows}"}
    await lab.execute(FIRST, "ALTER SYSTEM SET max_standby_streaming_delay = 0")
    await lab.execute(FIRST, "SELECT pg_reload_conf()")
    async with lab.open(FIRST, **PATIENT) as database:
        await lab.write(database)
        current_watermark.set(None)
        task = asyncio.create_task(lab.read(database, what=query))
        await until_found(lambda: lab.sleeping(FIRST))
        await lab.execute(PRIMARY, "DELETE FROM probes")
        await lab.execute(PRIMARY, "VACUUM probes")
        went = await task
        await lab.execute(FIRST, "ALTER SYSTEM RESET max_standby_streaming_delay")
        await lab.execute(FIRST, "SELECT pg_reload_conf()")
        return {"went": went, **counts(database)}


async def replica_is_not_written_to(lab):
    """Not even one that would take it, as if it had been promoted."""
    async with lab.open(PRIMARY, unhealthy="primary") as database:
        (replica,) = database.router.replicas
        async with replica.engine.connect() as connection:
            try:
                await connection.execute(insert(PROBES).values(id=-next(lab.numbers)))
            except DBAPIError as error:
                number = error.orig.args[0]
                code = number if number in READ_ONLY else error.orig.sqlstate
                return {"refused": code}


async def no_read_waits_for_a_replica_that_is_far_behind(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        replica._max_lag_seconds = 60  # and is not banned for that
        await lab.execute(FIRST, PAUSE[lab.dialect])
        await lab.write(database)
        first = await soon(lab.read(database))
        await until_found(lambda: is_behind(lab, database, 0.25))
        waits = [PATIENCE_SECONDS]
        end = monotonic() + PATIENCE_SECONDS
        while min(waits) > AT_ONCE_SECONDS and monotonic() < end:
            behind, began = database.router.fallbacks["behind"], monotonic()
            await lab.read(database)
            if database.router.fallbacks["behind"] > behind:  # a replica was ready
                waits.append(monotonic() - began)
        found = {"went": first, "late": min(waits) > AT_ONCE_SECONDS}
        await lab.execute(FIRST, RESUME[lab.dialect])
        await until_found(lambda: is_read(lab, database))
        return found


async def is_behind(lab, database, seconds):
    await lab.read(database)
    replicas = database.router.replicas
    return [each for each in replicas if each.lag_seconds > seconds]


async def commit_without_a_position_is_no_lag(lab):
    def fail(*_):
        raise OperationalError(None, None, ConnectionError("lost"))

    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        replica._max_lag_seconds = 1
        with mock.patch.object(router_module, "commit_position", fail):
            await lab.write(database)
        went = await lab.read(database)
        fallbacks = {**database.router.fallbacks}
        current_watermark.set(None)
        end = monotonic() + 1.5
        while monotonic() < end:
            await lab.read(database)
            await asyncio.sleep(0.1)
        await until_found(lambda: is_read(lab, database))
        bans = counts(database)["bans"]
        return {"went": went, "fallbacks": fallbacks, "bans": bans}


async def position_stays_with_its_task(lab):
    """Of a task that serves no request, from its first commit on."""
    async with lab.open(FIRST) as database:
        await lab.execute(FIRST, PAUSE[lab.dialect])

        async def write_and_read():
            current_watermark.set(None)
            await lab.write(database)
            went = await lab.read(database)
            has_written.set()
            return went, bool(current_watermark.get())

        async def other():
            current_watermark.set(None)
            await has_written.wait()
            await until_found(lambda: is_read(lab, database))
            return "replica", bool(current_watermark.get())

        has_written = asyncio.Event()

        found = await asyncio.gather(write_and_read(), other())
        await lab.execute(FIRST, RESUME[lab.dialect])
        return found


async def uses_take_so_many_round_trips(lab):
    async with lab.open(FIRST) as database:
        (replica,) = database.router.replicas
        # No probe shall be counted.
        if replica._probe:
            await asyncio.wait({replica._probe})
        replica.ready_until, replica.probe = float("inf"), lambda: None
        database.router._sampled_at = float("inf")
        counted = {}
        with without_pings():
            for use in (lab.read, lab.write):
                await use(database)  # asyncpg prepares a statement when it is new
                counted[use.__name__] = await round_trips(lab, use(database))
            current_watermark.set(ReadWatermark({**replica.position}))
            read = lab.read(database)
            counted["read of what is there"] = await round_trips(lab, read)
        current_watermark.set(None)
        paused = []
        for _ in range(2):
            await asyncio.sleep(IDLE_SECONDS)
            paused.append(await round_trips(lab, lab.read(database)))
        # psycopg prepares a statement when it was executed a few times: once more.
        is_psycopg = database.engine.dialect.driver == "psycopg"
        counted["read after a pause"] = (min if is_psycopg else max)(paused)
    async with lab.open() as database:
        with without_pings():
            for _ in range(2):
                alone = await round_trips(lab, lab.write(database))
    return {**counted, "write without replicas": alone}


async def round_trips(lab, use):
    for proxy in lab.proxies:
        proxy.reset()
    await use
    return sum(proxy.round_trips for proxy in lab.proxies)
