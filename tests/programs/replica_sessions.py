"""Scenarios: what the sessions of one client find on replicas."""

import asyncio

from replica_servers import (
    FIRST,
    PATIENT,
    PAUSE,
    PRIMARY,
    RESUME,
    SLOWLY,
    counts,
    is_read,
    until_found,
)
from server_sessions import PROBES
from shop.db.replicas.watermark import current_watermark
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

# A function that writes, of which only the server knows.
WRITES = {
    "postgresql": "CREATE OR REPLACE FUNCTION write_probe(number bigint) RETURNS bigint"
    " LANGUAGE sql AS 'INSERT INTO probes (id) VALUES (number) RETURNING id'",
    "mysql": "CREATE FUNCTION IF NOT EXISTS write_probe(number bigint) RETURNS bigint"
    " DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO probes (id) VALUES (number);"
    " RETURN number; END",
}


async def refusal_to_write_is_not_repeated_elsewhere(lab):
    await lab.execute(PRIMARY, WRITES[lab.dialect])
    numbers, refused = [-next(lab.numbers), -next(lab.numbers)], []
    async with lab.open(FIRST) as database:
        await lab.write(database)
        await until_found(lambda: is_read(lab, database))  # and so is the function
        for number, kind in zip(
            numbers, (database.read, database.snapshot), strict=True
        ):
            async with kind() as session:
                try:
                    await session.scalar(select(func.write_probe(number)))
                except DBAPIError as error:
                    refused.append(error.orig.args[0] in (1290, 1792, 1836))
                    refused[-1] |= getattr(error.orig, "sqlstate", "") == "25006"
        current_watermark.set(None)
        written = select(func.count()).where(PROBES.c.id.in_(numbers))
        async with database.write() as session:
            rows = await session.scalar(written)
        return {"refused": refused, "rows": rows, "bans": counts(database)["bans"]}


async def session_reads_what_its_client_has_written_since(lab):
    current_watermark.set(None)
    async with lab.open(FIRST) as database:
        await lab.execute(FIRST, PAUSE[lab.dialect])
        async with database.read() as session:
            went = [await lab.ask(session)]
            await lab.write(database)
            went.append(await lab.ask(session))
        async with database.snapshot() as snapshot:
            went.append(await lab.ask(snapshot))
        await lab.execute(FIRST, RESUME[lab.dialect])
        await until_found(lambda: is_read(lab, database))
        async with database.snapshot() as snapshot:
            went += [await lab.ask(snapshot) for _ in range(2)]
        sessions = sum(database.router.reads.values())
        return {"went": [lab.names[port] for port in went], "odd": sessions < 0}


async def statements_at_once_are_each_judged_by_their_own_server(lab):
    current_watermark.set(None)
    async with lab.open(FIRST, **PATIENT) as database, database.read() as session:
        tasks = [asyncio.create_task(lab.ask(session, what=SLOWLY)) for _ in range(3)]
        await until_found(lambda: lab.sleeping(FIRST), len(tasks))
        for number in await lab.sleeping(FIRST):
            await lab.kill(FIRST, number)
        went = [lab.names[port] for port in await asyncio.gather(*tasks)]
        return {"went": went, **counts(database)}
