"""Statements that take too long, or stand in each other's way."""

import asyncio

from rows import (
    CANARY,
    ONE,
    PATIENT,
    POSTGRESQL,
    SERVERS,
    THINGS,
    adds,
    row,
    serving,
)
from shop.db import Read, Write
from shop.db.config.backend import DIALECT, DRIVER
from sqlalchemy import String, cast, event, func, literal, select, text, update

# Beyond every limit.
LONG_SECONDS = 15
# What a session can do to itself.
WITHOUT_LIMIT = {
    "postgresql": "SET statement_timeout = 0",
    "mysql": "SET /*M! max_statement_time = 0 */ /*!80000 max_execution_time = 0 */",
}
READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
SNAPSHOT = {
    "postgresql": [],
    "mysql": [
        "SET SESSION innodb_snapshot_isolation = ON",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ],
}


def long():
    sleep = {"postgresql": func.pg_sleep, "mysql": func.sleep}[DIALECT]
    # MySQL ends a SLEEP that takes too long without an error, unless there are rows.
    rows = text("(SELECT 1 UNION SELECT 2) AS twice")
    return select(literal(CANARY), sleep(LONG_SECONDS)).select_from(rows)


def grow(name):
    """Lock a thing, and change it."""
    return update(THINGS).where(THINGS.c.name == name).values(size=THINGS.c.size + 1)


@row("statement timeout", SERVERS)
async def take_long(_):
    async def read(session: Read) -> None:
        await session.execute(long())

    async def write(session: Write) -> None:
        await session.execute(long())

    async with serving(read, write) as client:
        return await asyncio.gather(client.ask("/read"), client.ask("/write"))


@row("statement timer", SERVERS)
async def take_long_without_a_limit_of_the_server(_):
    """The last is how often it was executed."""
    executed = []

    async def lift(session: Write) -> None:
        await session.execute(text(WITHOUT_LIMIT[DIALECT]))

    async def read(session: Read) -> None:
        await session.execute(long())

    async with serving(lift, read, **ONE) as client:
        lifted = await client.ask("/lift")
        event.listen(
            client.engine, "before_cursor_execute", lambda *a: executed.append(a[2])
        )
        answer = await client.ask("/read")
        return [lifted, answer, sum("sleep" in each.lower() for each in executed)]


@row("slow write", SERVERS)
async def change_for_long(laboratory):
    name = f"{CANARY} slow"
    sleep = {"postgresql": func.pg_sleep, "mysql": func.sleep}[DIALECT]

    async def write(session: Write) -> None:
        changed = update(THINGS).where(THINGS.c.name == name).values(size=2)
        await session.execute(
            changed.where(func.length(cast(sleep(LONG_SECONDS), String)) < 9)
        )

    await laboratory.execute(adds(name))
    async with serving(write) as client:
        return [await client.ask("/write")]


@row("nowait", SERVERS)
async def want_at_once_what_is_locked(laboratory):
    name = f"{CANARY} nowait"
    wanted = select(THINGS.c.size).where(THINGS.c.name == name)

    async def write(session: Write) -> None:
        await session.execute(wanted.with_for_update(nowait=True))

    await laboratory.execute(adds(name))
    async with serving(write) as client, laboratory.database.write() as other:
        await other.execute(grow(name))
        return [await client.ask("/write")]


@row("lock timeout")
async def want_what_is_locked(laboratory):
    name = f"{CANARY} locked"

    async def write(session: Write) -> None:
        await session.execute(grow(name))

    await laboratory.execute(adds(name))
    async with serving(write) as client, laboratory.database.write() as other:
        await other.execute(grow(name))
        return [await client.ask("/write")]


@row("deadlock", SERVERS)
async def lock_two_in_both_orders(laboratory):
    names = f"{CANARY} left", f"{CANARY} right"
    both = asyncio.Barrier(2)

    async def write(session: Write, first: str, second: str) -> None:
        await session.execute(grow(first))
        await both.wait()
        await session.execute(grow(second))

    await laboratory.execute(*map(adds, names))
    async with serving(write, **PATIENT) as client:
        answers = await asyncio.gather(
            *(
                client.ask("/write", first=first, second=second)
                for first, second in (names, names[::-1])
            )
        )
    return sorted(answers)


@row("serialization", SERVERS)
async def change_what_has_changed(laboratory):
    """Within a snapshot; MariaDB must be configured to report it."""
    name = f"{CANARY} changed"

    async def prepare(session: Write) -> None:
        for statement in SNAPSHOT[DIALECT]:
            await session.execute(text(statement))

    async def write(session: Write) -> None:
        if DRIVER in POSTGRESQL:
            level = {"isolation_level": "REPEATABLE READ"}
            await session.connection(execution_options=level)
        await session.execute(select(THINGS.c.size).where(THINGS.c.name == name))
        await laboratory.execute(grow(name))
        await session.execute(grow(name))

    await laboratory.execute(adds(name))
    async with serving(prepare, write, **ONE) as client:
        return [await client.ask("/prepare"), await client.ask("/write")]


@row("read only")
async def write_where_nobody_may(_):
    async def forbid(session: Write) -> None:
        await session.execute(text(READ_ONLY[DIALECT]))

    async def write(session: Write) -> None:
        await session.execute(adds(f"{CANARY} forbidden"))

    async with serving(forbid, write, **ONE) as client:
        return [await client.ask("/forbid"), await client.ask("/write")]


@row("pool full")
async def want_a_connection_of_a_full_pool(_):
    async def hold(session: Write) -> None:
        await session.execute(select(literal(CANARY)))
        has_one.set()
        await is_done.wait()

    async def read(session: Read) -> None:
        await session.execute(select(literal(CANARY)))

    has_one, is_done = asyncio.Event(), asyncio.Event()
    async with serving(hold, read, **ONE) as client:
        holding = asyncio.create_task(client.ask("/hold"))
        async with asyncio.timeout(30):
            await has_one.wait()
        # Only now: beside all other rows, a first connect may take longer.
        client.engine.pool._timeout = 3
        answer = await client.ask("/read")
        is_done.set()
        return [answer, await holding]
