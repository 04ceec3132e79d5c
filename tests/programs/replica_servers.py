"""The primary and the replicas of a service, with a proxy in front of each.

The URLs are without encryption, which would hide the statements from a proxy.
"""

import asyncio
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import monotonic

from server_sessions import DIALECTS, PROBES
from shop.db import open_database
from shop.db.config import timeouts
from shop.db.config.backend import DIALECT
from shop.db.engine.create import create_engine
from shop.settings import Settings
from sqlalchemy import insert, literal_column, select
from sqlalchemy.exc import DBAPIError

from tests.support.proxy import Proxy

# From a healthy server, on a machine that has other things to do; a connect to a silent
# server takes longer.
SOON_SECONDS = 3
# Longer than the limit of a statement.
LONG_SECONDS = 15
PRIMARY, FIRST = 0, 1  # of the servers
# For scenarios that let several connections begin, or a statement wait for its end:
# longer than a service may wait in all.
timeouts.TIMEOUT_ORDER = ()
UNHURRIED = {
    "database_connect_timeout_seconds": 10,
    "database_acquire_timeout_seconds": 12,
    "database_client_timeout_seconds": 14,
}
PATIENT = UNHURRIED | {"database_statement_timeout_seconds": 12}
PORT = {"postgresql": "inet_server_port()", "mysql": "@@port"}
SESSION = {"postgresql": "pg_backend_pid()", "mysql": "connection_id()"}
# The port, by a statement that takes long on a replica only.
SLOWLY = {
    "postgresql": "inet_server_port() + 0 * length(CASE WHEN pg_is_in_recovery()"
    f" THEN pg_sleep({LONG_SECONDS})::text ELSE '' END)",
    # MySQL ends a SLEEP that takes too long without an error, unless there are rows.
    "mysql": f"@@port + IF(@@read_only, SLEEP({LONG_SECONDS}), 0) FROM"
    " (SELECT 1 UNION SELECT 2) AS twice",
}
PAUSE = {
    "postgresql": "SELECT pg_wal_replay_pause()",
    "mysql": "STOP REPLICA SQL_THREAD",
}
RESUME = {
    "postgresql": "SELECT pg_wal_replay_resume()",
    "mysql": "START REPLICA SQL_THREAD",
}
ADMINISTRATOR = {"postgresql": "postgres", "mysql": "root"}


def is_known(replica, reason):
    if replica.unhealthy_reason != reason:
        replica.probe()  # again, if the first was too late
    return replica.unhealthy_reason == reason


def replicas_of(database):
    return getattr(database.router, "replicas", [])


class Lab:
    """The servers as an administrator sees them, and the ways to them."""

    def __init__(self, stack):
        settings = Settings.load()
        self.dialect = DIALECT
        self.url = settings.server.url(self.dialect)
        servers = [settings.server, *settings.replicas.values()]
        self.names = {server.port: "replica" for server in servers}
        self.names[settings.server.port] = "primary"
        self.number = len(servers) - 1
        self.ports = [server.port for server in servers]
        self.engines = [
            create_engine(
                replace(server, user=ADMINISTRATOR[self.dialect]),
                settings.limits,
                pool="administrator",
            )
            for server in servers
        ]
        self.proxies = [
            stack.enter_context(Proxy("127.0.0.1", server.port)) for server in servers
        ]

    @asynccontextmanager
    async def open(self, *servers, unhealthy="", failover_port=None, **limits):
        """The database with these for its replicas, when their health is known."""
        for proxy in self.proxies:
            proxy.heal()
        primary, *others = [
            self.url.set(port=self.proxies[server].port).render_as_string()
            for server in (PRIMARY, *servers)
        ]
        if failover_port:
            own = f"127.0.0.1:{self.proxies[PRIMARY].port}"
            primary = primary.replace(own, f"{own},127.0.0.1:{failover_port}")
        os.environ |= {
            "DATABASE_URL": primary,
            "DATABASE_REPLICA_URLS": ",".join(others),
        }
        settings = Settings.load().model_copy(update=limits)
        async with open_database(settings) as database:
            for replica in replicas_of(database):
                await until(lambda: is_known(replica, unhealthy))  # noqa: B023
                replica.bans.clear()  # of first probes that were late
            yield database

    async def execute(self, server, statement):
        async with self.engines[server].connect() as connection:
            result = await connection.exec_driver_sql(statement)
            return result.scalars().all() if result.returns_rows else []

    async def kill(self, server, session):
        sql = DIALECTS[self.dialect]
        with suppress(DBAPIError):  # it has ended by itself
            await self.execute(server, sql.kill.replace(":id", str(session)))
        await until_found(lambda: self.has_ended(server, session))

    async def has_ended(self, server, *sessions):
        open_now = await self.execute(server, DIALECTS[self.dialect].others)
        return [True] if not {*sessions} & {*open_now} else []

    async def sleeping(self, server):
        sql = DIALECTS[self.dialect]
        return await self.execute(
            server, (sql.others + sql.sleeping).replace("%", "%%")
        )

    async def ask(self, session, *, what=PORT):
        return await session.scalar(select(literal_column(what[self.dialect])))

    async def read(self, database, *, what=PORT):
        async with database.read() as session:
            return self.names[await self.ask(session, what=what)]

    async def write(self, database):
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=next(self.numbers)))


async def is_read(lab, database):
    return [name for name in [await lab.read(database)] if name == "replica"]


def left():
    """The tasks that are neither the scenario's nor of what runs it."""
    return len(asyncio.all_tasks()) - 2


def counts(database):
    (replica,) = database.router.replicas
    return {
        "fallbacks": {**database.router.fallbacks},
        "bans": {**+replica.bans},
    }


async def probed(replica):
    """When a probe has ended that began after the call."""
    if replica._probe:
        await asyncio.wait({replica._probe})
    replica.probe()
    if replica._probe:
        await asyncio.wait({replica._probe})


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def until_found(find, number=1):
    async with asyncio.timeout(30):
        while len(await find()) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def soon(use):
    began = monotonic()
    result = await use
    return result if monotonic() - began < SOON_SECONDS else f"{result}, late"
