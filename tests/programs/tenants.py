"""Two tenants under row level security, interleaved over few sessions of the server.

The role does not own the table. The program prints the rows that a tenant has seen of
the other, those that a tenant misses, and the settings that have outlived a session.
"""

import asyncio
import json

import uvloop
from shop.db import bulk_insert, export, open_database
from shop.settings import Settings
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select, text
from sqlalchemy.exc import DBAPIError

NOTES = Table(
    "notes",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant", String),
)
SETUP = (
    "DROP TABLE IF EXISTS notes",
    "CREATE TABLE notes (id int PRIMARY KEY, tenant text NOT NULL)",
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY own ON notes USING (tenant = current_setting('app.tenant', true))",
    "DO $$ BEGIN CREATE ROLE tenant_user; EXCEPTION WHEN duplicate_object THEN NULL;"
    " END $$",
    "GRANT ALL ON notes TO tenant_user",
)
TENANTS = ("acme", "globex")
ROUNDS = 20
STATE = select(
    text("current_user = session_user"), text("current_setting('app.tenant', true)")
)
# Eight tasks wait for two sessions of the pooler.
PATIENT = {
    "database_connect_timeout_seconds": 20,
    "database_acquire_timeout_seconds": 30,
    "database_client_timeout_seconds": 30,
}


def settings_of(tenant):
    return {"app.tenant": tenant, "role": "tenant_user"}


async def work(database, tenant, first, found):
    """Write as the tenant, read one state as the tenant, and without a tenant."""
    settings, own = settings_of(tenant), set()
    for number in range(first, first + ROUNDS):
        async with database.write(settings) as session:
            await session.execute(insert(NOTES).values(id=number, tenant=tenant))
        own.add(number)
        async with database.snapshot(settings) as session:
            rows = (await session.execute(select(NOTES))).all()
            again = {*await session.scalars(select(NOTES.c.id))}
        found["foreign"] += sum(row.tenant != tenant for row in rows)
        found["missing"] += len(own - again) + len({row.id for row in rows} ^ again)
        async with database.read() as session:
            is_itself, left = (await session.execute(STATE)).one()
        async with database.write() as session:
            found["left"] += not is_itself or bool(left)
            found["left"] += (await session.execute(STATE)).one()[1] not in (None, "")


async def forge(database, found):
    """Write a row of the other tenant."""
    try:
        async with database.write(settings_of("acme")) as session:
            await session.execute(insert(NOTES).values(id=-1, tenant="globex"))
    except DBAPIError as error:
        found["forged"] = error.orig.sqlstate


async def in_bulk(database, found):
    async with bulk_insert(database, settings_of("acme")) as connection:
        await connection.execute(insert(NOTES), [{"id": 9000, "tenant": "acme"}])
    async with export(database, settings_of("globex")) as connection:
        rows = await connection.stream(select(NOTES))
        found["foreign"] += sum([row.tenant != "globex" async for row in rows])


async def main():
    found = {"foreign": 0, "missing": 0, "left": 0, "forged": ""}
    async with open_database(Settings.load().model_copy(update=PATIENT)) as database:
        for statement in SETUP:
            async with database.write() as session:
                await session.execute(text(statement))
        await asyncio.gather(
            *(
                work(database, tenant, 1000 * turn + 100 * number, found)
                for turn in range(4)
                for number, tenant in enumerate(TENANTS)
            )
        )
        await forge(database, found)
        await in_bulk(database, found)
    print(json.dumps(found))


uvloop.run(main())
