"""Errors that a server causes, or another process on the server."""

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from entries import MYSQL, POSTGRESQL, SETTINGS, cures, provokes
from shop.db import open_database
from shop.db.config.backend import DIALECT, DRIVER
from shop.settings import Settings
from sqlalchemy import column, select, text
from sqlalchemy.exc import DBAPIError

PLAN = "cached statement plan is invalid"
RESULT = "cached plan must not change result type"
MANY = "Too many connections"
OTHERS = "remaining connection slots are reserved"
ROLE = "too many connections for role"
SUPERUSER = "too many clients already"
USER = "has exceeded the 'max_user_connections' resource"
LOCKED = "database is locked"

PROBES = select(text("*")).select_from(text("probes"))
BEFORE = ("DROP TABLE IF EXISTS probes", "CREATE TABLE probes (id int)")
MIGRATION = ("DROP TABLE probes", "CREATE TABLE probes (id bigint)")

# A server with ten connections, one of which an administrator has. PostgreSQL keeps
# three for such, MySQL has one more for them.
FEW = os.environ.get("FEW_CONNECTIONS_URL")
LEFT = {"postgresql": 6, "mysql": 9}
PRESENT = {
    "postgresql": (
        "count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    ),
    "mysql": (
        "count(*) FROM information_schema.processlist"
        " WHERE user <> 'system user' AND id <> connection_id()"
    ),
}
USERS = {
    "postgresql": (
        "DROP ROLE IF EXISTS one, plain",
        "CREATE ROLE one LOGIN CONNECTION LIMIT 1",
        "CREATE ROLE plain LOGIN",
    ),
    "mysql": (
        "DROP USER IF EXISTS one, plain",
        "CREATE USER one WITH MAX_USER_CONNECTIONS 1",
        "CREATE USER plain",
        "GRANT SELECT ON *.* TO one, plain",
    ),
}
# The statements of the README.
WHO = {
    "postgresql": (
        "SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2"
    ),
    "mysql": (
        "SELECT user, host, count(*) FROM information_schema.processlist GROUP BY 1, 2"
    ),
}


async def execute(database, *statements):
    async with database.write() as session:
        for statement in statements:
            await session.execute(text(statement))


async def migrate_behind(database):
    """Change what each connection has prepared, as another process does it."""
    await execute(database, *BEFORE)
    # psycopg prepares what is executed for the sixth time.
    for _ in range(6):
        await write_on_each_connection(database)
    async with open_database(SETTINGS) as other:
        await execute(other, *MIGRATION)


async def write_on_each_connection(database):
    """Answer how many units of work have failed, one after the other."""
    all_hold_one = asyncio.Barrier(SETTINGS.database_pool_size)
    turn = asyncio.Lock()

    async def unit():
        async with database.write() as session:
            await session.scalar(select(1))
            await all_hold_one.wait()
            async with turn:
                await session.execute(PROBES)

    units = (unit() for _ in range(all_hold_one.parties))
    done = await asyncio.gather(*units, return_exceptions=True)
    return sum(isinstance(error, DBAPIError) for error in done)


@provokes(PLAN, on=["asyncpg"])
@provokes(RESULT, on=["psycopg"])
async def write_after_a_migration(database):
    await migrate_behind(database)
    async with database.write() as session:
        await session.execute(PROBES)


@cures(PLAN, on=["asyncpg"])
@cures(RESULT, on=["psycopg"])
async def repeat_the_request(database):
    await migrate_behind(database)
    connections = SETTINGS.database_pool_size
    once = {"asyncpg": 1, "psycopg": connections}[DRIVER]
    assert await write_on_each_connection(database) == once
    assert await write_on_each_connection(database) == 0


@cures(PLAN, on=["asyncpg"])
@cures(RESULT, on=["psycopg"])
async def read_after_a_migration(database):
    await migrate_behind(database)
    async with database.read() as session:
        for _ in range(2):
            await asyncio.gather(*(session.execute(PROBES) for _ in range(10)))


@cures(PLAN, on=["asyncpg"])
@cures(RESULT, on=["psycopg"])
async def add_a_column(database):
    """Which the ORM, that selects columns by their names, does not notice."""
    await execute(database, *BEFORE)
    query = select(column("id")).select_from(text("probes"))
    for statement in ("SELECT 1", "ALTER TABLE probes ADD more int"):
        async with open_database(SETTINGS) as other:
            await execute(other, statement)
        for _ in range(6):
            async with database.read() as session:
                await session.execute(query)


@asynccontextmanager
async def many(number, user):
    """Hold so many connections of a user; the settings are the administrator's."""
    settings = Settings(database_url=FEW)
    changed = {"database_user": user} if user else {}
    changed |= {"database_pool_size": number, "database_max_overflow": 0}
    async with (
        open_database(settings) as administrator,
        open_database(settings.model_copy(update=changed)) as database,
        AsyncExitStack() as sessions,
    ):
        async with asyncio.timeout(10):
            while not await is_alone(administrator):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await execute(administrator, *USERS[DIALECT])
        for _ in range(number):
            session = await sessions.enter_async_context(database.write())
            await session.scalar(select(1))
        yield settings


async def is_alone(administrator):
    """Former sessions have left, which end a little later than their connections."""
    with suppress(DBAPIError):  # it may be one too many itself
        async with administrator.read() as session:
            return await session.scalar(select(text(PRESENT[DIALECT]))) == 0


@provokes(ROLE, on=POSTGRESQL)
@provokes(USER, on=MYSQL)
async def exceed_the_limit_of_a_user():
    async with many(2, "one"):
        pass


@provokes(OTHERS, on=POSTGRESQL)
@provokes(MANY, on=MYSQL)
async def exceed_what_is_left_for_users():
    async with many(LEFT[DIALECT] + 1, "plain"):
        pass


@provokes(SUPERUSER, on=POSTGRESQL)
async def exceed_what_there_is():
    async with many(11, None):
        pass


@cures(ROLE, OTHERS, SUPERUSER, on=POSTGRESQL)
@cures(MANY, USER, on=MYSQL)
async def ask_who_has_them_and_end_those():
    async with (
        many(LEFT[DIALECT], "plain") as settings,
        open_database(settings) as database,
        database.write() as session,
    ):
        rows = (await session.execute(text(WHO[DIALECT]))).all()
        counted = sum(row[-1] for row in rows if row[0] == "plain")
        assert counted == LEFT[DIALECT]
    async with many(1, "one"):
        pass


@provokes(LOCKED, on=["aiosqlite"])
async def write_within_a_write(database):
    async with database.write() as outer, database.write() as inner:
        await outer.execute(text("SELECT 1"))
        await inner.execute(text("SELECT 1"))


@cures(LOCKED, on=["aiosqlite"])
async def write_one_after_the_other(database):
    for _ in range(2):
        await execute(database, "SELECT 1")
