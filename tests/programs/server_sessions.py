"""The sessions of a server, to be watched and ended by the other programs."""

from typing import NamedTuple

from sqlalchemy import BigInteger, Column, MetaData, Table, func, select, text
from sqlalchemy.schema import CreateTable

PROBES = Table(
    "probes",
    MetaData(),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger),
    Column("copy", BigInteger),
)


class Sql(NamedTuple):
    """The statements that differ between the servers."""

    sleep: str
    # The other sessions on this database, those of them that sleep, the end of one.
    others: str
    sleeping: str
    kill: str


POSTGRESQL = Sql(
    sleep="pg_sleep",
    others="SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    sleeping=" AND state = 'active' AND query LIKE '%pg_sleep(%'",
    # With a time limit in milliseconds: it returns when the session has gone.
    kill="SELECT pg_terminate_backend(:id, 5000)",
)
MYSQL = Sql(
    sleep="sleep",
    others="SELECT id FROM information_schema.processlist"
    " WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    sleeping=" AND info LIKE '%sleep(%'",
    kill="KILL :id",
)
DIALECTS = {"postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL}


class Server:
    """The server as an administrator sees it, by another way than the service."""

    def __init__(self, database, dialect):
        self._database = database
        self._sql = DIALECTS[dialect]

    async def create_probes(self):
        async with self._database.write() as session:
            await session.execute(CreateTable(PROBES))

    async def sessions(self):
        return await self._numbers(self._sql.others)

    async def sleeping(self):
        return await self._numbers(self._sql.others + self._sql.sleeping)

    async def kill(self, number):
        async with self._database.write() as session:
            await session.execute(text(self._sql.kill), {"id": number})

    async def rows(self):
        async with self._database.read() as session:
            return {*await session.scalars(select(PROBES.c.id))}

    def sleep(self, seconds):
        return select(getattr(func, self._sql.sleep)(seconds))

    async def _numbers(self, query):
        # A transaction each: PostgreSQL shows one transaction one state.
        async with self._database.write() as session:
            return {*await session.scalars(text(query))}
