"""What becomes of reads in each trouble of a replica, as one process sees it.

Prints what was found in the scenarios that are named as arguments. The URLs are without
encryption: there is a proxy in front of each server.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, suppress
from itertools import count, pairwise
from time import monotonic
from unittest import mock

import uvloop
from laboratory import DIALECTS, PROBES
from shop.db import replica as replica_module
from shop.db import replicas as replicas_module
from shop.db import session as session_module
from shop.db.engine import create_engine
from shop.db.faults import classify
from shop.db.position import SEEN, Seen
from shop.db.session import open_database
from shop.settings import Settings
from sqlalchemy import event, insert, literal_column, select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.schema import CreateTable

from tests.support.proxy import Proxy

# Short, so that the tests see its end.
BAN_SECONDS = 1.5
# From a server that is well, on a machine that has other things to do.
SOON_SECONDS = 0.8
# What has not come by then waits for a limit of the pool or of the connection.
CUT_SECONDS = 2.4
# Longer than the limit of a statement.
LONG_SECONDS = 4
# Between two questions to the primary where it is.
SAMPLE_SECONDS = replicas_module.SAMPLE_SECONDS
IDLE_SECONDS = 1.1

PRIMARY, FIRST = 0, 1  # of the servers
PORT = {"postgresql": "inet_server_port()", "mysql": "@@port"}
SESSION = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}
# The port, by a statement that takes long on a replica only.
SLOWLY = {
    "postgresql": "inet_server_port() + 0 * length(CASE WHEN pg_is_in_recovery()"
    f" THEN pg_sleep({LONG_SECONDS})::text ELSE '' END)",
    "mysql": f"@@port + IF(@@read_only, SLEEP({LONG_SECONDS}), 0)",
}
PAUSE = {"postgresql": "SELECT pg_wal_replay_pause()", "mysql": "STOP SLAVE SQL_THREAD"}
RESUME = {
    "postgresql": "SELECT pg_wal_replay_resume()",
    "mysql": "START SLAVE SQL_THREAD",
}
READ_ONLY = {1792}  # the others say 25006
ADMINISTRATOR = {"postgresql": "postgres", "mysql": "root"}


def is_seen(replica, trouble):
    if replica.trouble != trouble:
        replica.look()  # again, if the first was too late
    return replica.trouble == trouble


class Lab:
    """The servers as an administrator sees them, and the ways to them."""

    def __init__(self, stack):
        settings = Settings.load()
        self.dialect = settings.sqlalchemy_url.get_backend_name()
        self.url = settings.sqlalchemy_url.set(drivername=self.dialect)
        servers = [settings, *settings.replicas()]
        self.names = {server.database_port: "replica" for server in servers}
        self.names[settings.database_port] = "primary"
        self.number = len(servers) - 1
        self.ports = [server.database_port for server in servers]
        administrator = {"database_user": ADMINISTRATOR[self.dialect]}
        self.engines = [
            create_engine(server.model_copy(update=administrator), "laboratory")
            for server in servers
        ]
        self.proxies = [
            stack.enter_context(Proxy("127.0.0.1", server.database_port))
            for server in servers
        ]

    @asynccontextmanager
    async def open(self, *servers, trouble=""):
        """The database with these for its replicas, when they are seen to be well."""
        for proxy in self.proxies:
            proxy.heal()
        primary, *others = [
            self.url.set(port=self.proxies[server].port).render_as_string()
            for server in (PRIMARY, *servers)
        ]
        os.environ |= {
            "DATABASE_URL": primary,
            "DATABASE_REPLICA_URLS": ",".join(others),
        }
        async with open_database(Settings.load()) as database:
            for replica in database.replicas:
                await until(lambda: is_seen(replica, trouble))  # noqa: B023
            yield database

    async def tell(self, server, statement):
        async with self.engines[server].connect() as connection:
            result = await connection.exec_driver_sql(statement)
            return result.scalars().all() if result.returns_rows else []

    async def kill(self, server, session):
        sql = DIALECTS[self.dialect]
        with suppress(DBAPIError):  # it has ended by itself
            await self.tell(server, sql.kill.replace(":id", str(session)))
        await until_found(lambda: self.has_ended(server, session))

    async def has_ended(self, server, *sessions):
        open_now = await self.tell(server, DIALECTS[self.dialect].others)
        return [True] if not {*sessions} & {*open_now} else []

    async def sleeping(self, server):
        sql = DIALECTS[self.dialect]
        return await self.tell(server, (sql.others + sql.sleeping).replace("%", "%%"))

    async def ask(self, session, *, what=PORT):
        return await session.scalar(select(literal_column(what[self.dialect])))

    async def read(self, database, *, what=PORT):
        async with database.read() as session:
            return self.names[await self.ask(session, what=what)]

    async def write(self, database):
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=next(self.numbers)))


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


async def silent_replica_holds_nobody_up(lab):
    """Who has asked it is sent on, who comes is not sent there."""
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


async def is_read(lab, database):
    return [name for name in [await lab.read(database)] if name == "replica"]


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


def left():
    """The tasks that are neither the scenario's nor of what runs it."""
    return len(asyncio.all_tasks()) - 2


def figures(database):
    (replica,) = database.replicas
    return {
        "fallbacks": {**database.replicas.fallbacks},
        "bans": {**replica.bans},
    }


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def until_found(look, number=1):
    async with asyncio.timeout(10):
        while len(await look()) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def soon(use):
    began = monotonic()
    result = await use
    return result if monotonic() - began < SOON_SECONDS else f"{result}, late"


async def main(names):
    replica_module.BAN_SECONDS = BAN_SECONDS
    replicas_module.show = lambda _: None  # which would take over what is counted
    found = {}
    with ExitStack() as stack:
        lab = Lab(stack)
        with suppress(DBAPIError):  # another run has made it
            async with lab.engines[PRIMARY].begin() as connection:
                await connection.execute(CreateTable(PROBES))
        (last,) = await lab.tell(PRIMARY, "SELECT coalesce(max(id), 0) FROM probes")
        lab.numbers = count(last + 1)
        for name in names:
            began = monotonic()
            found[name] = await asyncio.create_task(globals()[name](lab))
            print(f"{name}: {monotonic() - began:.1f} s", file=sys.stderr)
        for engine in lab.engines:
            await engine.dispose()
    print(json.dumps(found))


uvloop.run(main(sys.argv[1:]))
