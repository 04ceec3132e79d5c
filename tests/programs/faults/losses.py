"""Connections that are lost: while idle, within a statement, at COMMIT and ROLLBACK."""

import asyncio
from contextlib import contextmanager
from time import monotonic

from fastapi import HTTPException
from rows import (
    CANARY,
    IDENTITY,
    IDLE_SECONDS,
    MYSQL,
    ONE,
    ORDER,
    PATIENT,
    PLAIN,
    POSTGRESQL,
    SERVERS,
    SETTINGS,
    adds,
    row,
    serving,
    until,
)
from shop.db import Read, Write
from shop.db.config.backend import DRIVER
from sqlalchemy import Enum, column, event, literal, select, table, text
from sqlalchemy.util.concurrency import await_
from waits import long

from tests.support.proxy import Proxy


async def read(session: Read) -> None:
    await session.execute(select(literal(CANARY)))


async def write(session: Write) -> None:
    await session.execute(select(literal(CANARY)))


def number_of(connection):
    """What the server calls it, which the driver knows without asking."""
    driver_connection = connection.connection.driver_connection
    if DRIVER in MYSQL:
        return driver_connection.thread_id()
    if DRIVER == "psycopg":
        return driver_connection.info.backend_pid
    return driver_connection.get_server_pid()


@contextmanager
def network():
    """A way to the server on which bytes can be lost, and the settings that take it."""
    with Proxy(SETTINGS.database_host, SETTINGS.database_port) as proxy:
        yield proxy, {"database_port": proxy.port} | PLAIN


def as_just_used(client):
    """One that has rested for a second would be pinged, and a test takes longer."""
    (entry,) = client.engine.pool._pool._queue._queue
    entry.info["used_at"] = monotonic() + 60


async def kill_idle(laboratory, client):
    answer = await client.post("/identity")
    await laboratory.kill(answer.json())


@row("killed a moment ago", SERVERS)
async def use_a_connection_that_was_just_in_use(laboratory):
    """The connection is not asked before: a read is repeated, a write says so."""
    answers = []
    async with serving(read, write, **ONE) as client:
        client.repeat_late_reads()
        for path in ("/read", "/write"):
            await kill_idle(laboratory, client)
            as_just_used(client)
            answers += [await client.ask(path), await client.ask(path)]
    return answers


@row("closed for being idle", MYSQL)
async def use_a_connection_that_the_server_has_closed(laboratory):
    async def limit(session: Write) -> int:
        number = await session.scalar(IDENTITY)
        await session.execute(text("SET wait_timeout = 1"))
        return number

    answers = []
    async with serving(limit, read, write, **ONE) as client:
        client.repeat_late_reads()
        for path in ("/read", "/write"):
            answer = await client.post("/limit")
            await until(laboratory.is_gone, answer.json())
            as_just_used(client)
            answers += [await client.ask(path), await client.ask(path)]
    return answers


@row("killed while idle", SERVERS)
async def use_a_connection_that_was_idle(laboratory):
    async def one(path):
        async with serving(read, write, **ONE) as client:
            await kill_idle(laboratory, client)
            await asyncio.sleep(IDLE_SECONDS)
            return await client.ask(path)

    return await asyncio.gather(one("/read"), one("/write"))


@row("killed within a statement", SERVERS)
async def lose_a_statement(laboratory):
    async def sleep(session: Write) -> None:
        number.set_result(await session.scalar(IDENTITY))
        await session.execute(long())

    async def is_asleep():
        return number.result() in await laboratory.server.sleeping()

    number = asyncio.get_running_loop().create_future()
    async with serving(sleep, **PATIENT) as client:
        answer = asyncio.create_task(client.ask("/sleep"))
        async with asyncio.timeout(30):
            await number
        await until(is_asleep)
        await laboratory.kill(number.result())
        return [await answer]


@row("killed before COMMIT", SERVERS)
async def lose_a_transaction(laboratory):
    name = f"{CANARY} before COMMIT"

    async def add(session: Write) -> None:
        await session.execute(adds(name))
        await laboratory.kill(await session.scalar(IDENTITY))

    async def find(session: Write) -> None:
        await session.execute(select(literal(CANARY)))
        await laboratory.kill(await session.scalar(IDENTITY))

    async with serving(add, find) as client:
        answers = [await client.ask("/add"), await laboratory.has(name)]
        return [*answers, await client.ask("/find")]


@row("idle for too long", SERVERS)
async def let_the_server_end_a_session_that_does_nothing(laboratory):
    names = f"{CANARY} idle", f"{CANARY} idle and used"  # one name would be a lock

    async def is_closed(session):
        connection = await (await session.connection()).get_raw_connection()
        return session.bind.dialect.watchdog.is_closed(connection)

    async def add(session: Write, name: str) -> None:
        await session.execute(adds(name))
        await until(laboratory.is_gone, await session.scalar(IDENTITY))
        await until(is_closed, session)  # which the end of the server precedes

    async def work(session: Write, name: str) -> None:
        await add(session, name)
        await session.execute(select(literal(CANARY)))

    soon = {"database_idle_in_transaction_timeout_seconds": 1}
    async with serving(add, work, **soon) as client:
        answers = await asyncio.gather(
            client.ask("/add", name=names[0]), client.ask("/work", name=names[1])
        )
        return [*answers, any([await laboratory.has(name) for name in names])]


@row("reset before COMMIT", SERVERS)
async def reset_a_transaction(laboratory):
    """The last number is that of the COMMITs that the service has sent."""
    # One name would be a lock, of a session whose server learns late of the reset.
    names = f"{CANARY} reset", f"{CANARY} reset and used"

    async def add(session: Write, name: str) -> None:
        await session.execute(adds(name))
        proxy.commits = 0
        proxy.break_connections()

    async def work(session: Write, name: str) -> None:
        await add(session, name)
        await session.execute(select(literal(CANARY)))

    with network() as (proxy, way):
        async with serving(add, work, **way) as client:
            answers = [
                await client.ask("/add", name=names[0]),
                await client.ask("/work", name=names[1]),
            ]
    is_there = any([await laboratory.has(name) for name in names])
    return [*answers, is_there, proxy.commits]


@row("reset while idle", SERVERS)
async def reset_a_connection_that_was_just_in_use(_):
    with network() as (proxy, way):
        async with serving(read, write, **ONE, **way) as client:
            client.repeat_late_reads()
            answers = []
            for path in ("/read", "/write"):
                await client.ask("/read")
                proxy.break_connections()
                as_just_used(client)
                answers += [await client.ask(path), await client.ask(path)]
    return answers


@row("lost after COMMIT", SERVERS)
async def lose_the_answer_to_a_commit(laboratory):
    name = f"{CANARY} after COMMIT"

    async def add(session: Write) -> None:
        await session.execute(adds(name))
        proxy.drop_after(rb"\bCOMMIT\b")

    with network() as (proxy, way):
        async with serving(add, **way) as client:
            answer = asyncio.create_task(client.ask("/add"))
            await until(laboratory.has, name)
            proxy.break_connections()
            return [await answer, await laboratory.has(name)]


@row("silent COMMIT", SERVERS)
async def wait_for_the_answer_to_a_commit(_):
    async def add(session: Write) -> None:
        await session.execute(adds(f"{CANARY} silent"))
        proxy.freeze()

    with network() as (proxy, way):
        async with serving(add, **way) as client:
            answer = await client.ask("/add")
        proxy.heal()
    return [answer]


@row("own error", SERVERS)
async def fail_on_a_connection_that_is_lost(laboratory):
    """The handler's own error is the answer, although the ROLLBACK fails as well."""

    async def killed(session: Write) -> None:
        await session.execute(adds(f"{CANARY} killed"))
        await laboratory.kill(await session.scalar(IDENTITY))
        raise HTTPException(402)

    async def silent(session: Write) -> None:
        await session.execute(adds(f"{CANARY} silent and undone"))
        proxy.freeze()
        raise HTTPException(402)

    with network() as (proxy, way):
        async with serving(killed, silent, **way) as client:
            return [await client.ask("/killed"), await client.ask("/silent")]


@row("killed every time", SERVERS)
async def lose_each_connection_just_before_the_read(laboratory):
    """The last number is that of the tries."""
    tried = []

    def kill(*arguments):
        connection, _, statement, *_ = arguments
        if CANARY in statement:
            tried.append(number_of(connection))
            await_(laboratory.kill(tried[-1]))

    async def read(session: Read) -> None:
        await session.execute(select(literal(1).label(CANARY)))

    async with serving(read) as client:
        client.repeat_late_reads()
        event.listen(client.engine, "before_cursor_execute", kill)
        return [await client.ask("/read"), len(tried)]


@row("killed between two queries", SERVERS)
async def read_an_order_on_a_connection_that_is_lost(laboratory):
    """Its lines come by a second query: both are repeated, on another connection."""
    killed = []

    def kill(*arguments):
        connection, _, statement, *_ = arguments
        if "FROM orders" in statement and not killed:
            killed.append(number_of(connection))
            await_(laboratory.kill(killed[0]))

    async with serving() as client:
        client.repeat_late_reads()
        created = (await client.post("/orders", json=ORDER)).json()
        event.listen(client.engine, "after_cursor_execute", kill)
        answer = await client.get(f"/orders/{created['id']}")
        return [answer.status_code, bool(killed) and answer.json() == created]


@row("changed type", POSTGRESQL)
async def filter_by_a_type_that_a_migration_has_replaced(laboratory):
    """Two connections: a read may be repeated once for each."""
    moods = table("moods", column("mood", Enum("calm", "merry", name="mood")))
    query = select(moods.c.mood).where(moods.c.mood == "calm")

    async def read(session: Read) -> None:
        await session.execute(query)

    async def both() -> None:
        async with client.database.write() as one, client.database.write() as other:
            await one.execute(query)
            await other.execute(query)

    async def replace() -> None:
        await laboratory.execute(
            text("ALTER TYPE mood RENAME TO old_mood"),
            text("CREATE TYPE mood AS ENUM ('calm', 'merry')"),
            text("ALTER TABLE moods ALTER mood TYPE mood USING mood::text::mood"),
            text("DROP TYPE old_mood"),
        )

    async def write(session: Write) -> None:
        await session.execute(query)

    await laboratory.execute(
        text("CREATE TYPE mood AS ENUM ('calm', 'merry')"),
        text("CREATE TABLE moods (mood mood)"),
    )
    answers = []
    two = ONE | {"database_pool_size": 2}
    async with serving(read, write, both, **two) as client:
        client.repeat_late_reads()
        for path in ("/read", "/write"):
            for _ in range(6):
                await client.post("/both")
            await replace()
            answers += [await client.ask(path) for _ in range(3)]
    return answers


@row("changed table", POSTGRESQL)
async def select_what_a_migration_has_changed(laboratory):
    """Behind what each connection has prepared: psycopg does it at the sixth time."""
    plans = select(text("*")).select_from(text("plans")).where(literal(CANARY) != "")

    async def read(session: Read) -> None:
        await session.execute(plans)

    async def write(session: Write) -> None:
        await session.execute(plans)

    answers = []
    await laboratory.execute(text("CREATE TABLE plans (size int)"))
    async with serving(read, write, **ONE) as client:
        client.repeat_late_reads()
        for path, kind in (("/read", "bigint"), ("/write", "numeric")):
            for _ in range(6):
                await client.post(path)
            await laboratory.execute(
                text(f"ALTER TABLE plans ALTER COLUMN size TYPE {kind}")
            )
            answers += [await client.ask(path), await client.ask(path)]
    return answers
