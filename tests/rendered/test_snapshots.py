"""A snapshot: one state for all its statements, and nothing that outlives it."""

import asyncio
from typing import Any

import pytest
from database import SLOW
from fastapi import FastAPI
from shop.db import (
    Database,
    Read,
    ReadSession,
    Snapshot,
    bulk_insert,
    export,
    open_database,
)
from shop.db.config.backend import DIALECT
from shop.settings import Settings
from sqlalchemy import column, func, insert, literal_column, select, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from test_sessions import PROBES, Probe, checked_out, probes, rows

IDS = select(PROBES.c.id).order_by(PROBES.c.id)
SETTINGS = {"app.tenant": "acme", "app.role": "O'Hara; --"}
pytestmark = pytest.mark.usefixtures(probes.__name__)


async def add(database: Database, number: int) -> None:
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=number))


async def ids(session: ReadSession) -> list[int]:
    return list(await session.scalars(IDS))


async def test_all_statements_of_a_snapshot_see_one_state(database: Database) -> None:
    await add(database, 1)
    async with database.snapshot() as snapshot, database.read() as reads:
        for session in (snapshot, reads):
            assert await ids(session) == [1]
        await add(database, 2)
        async with database.write() as writer:
            await writer.execute(PROBES.delete().where(PROBES.c.id == 1))

        assert await ids(reads) == [2]
        assert await ids(snapshot) == [1]
        probe = await snapshot.get(Probe, 1)
        assert probe
        assert probe.id == 1
        assert await snapshot.get(Probe, 2) is None
    async with database.snapshot() as snapshot:
        assert await ids(snapshot) == [2]


async def test_snapshot_holds_a_connection_from_its_first_statement_to_its_end(
    database: Database,
) -> None:
    async with database.snapshot() as session:
        assert checked_out(database) == 0
        await ids(session)
        assert checked_out(database) == 1
    assert checked_out(database) == 0

    with pytest.raises(ZeroDivisionError):
        await fail(database)
    assert checked_out(database) == 0
    await add(database, 1)  # the connection is as before
    assert await rows(database) == [1]


async def fail(database: Database) -> None:
    async with database.snapshot() as session:
        await ids(session)
        raise ZeroDivisionError


async def test_statements_at_once_wait_for_each_other(database: Database) -> None:
    await add(database, 1)
    async with database.snapshot() as session:
        found = await asyncio.gather(*(ids(session) for _ in range(20)))
        assert checked_out(database) == 1

    assert found == [[1]] * 20


async def test_statement_that_outlives_its_snapshot_gets_no_connection(
    settings: Settings,
) -> None:
    one = settings.model_copy(update={"database_pool_size": 1})
    async with open_database(one) as database:
        pool: Any = database.engine.pool
        async with database.engine.connect(), database.snapshot() as session:
            late = asyncio.create_task(ids(session))
            while not pool.gate.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0)
        with pytest.raises(InvalidRequestError, match="has ended"):
            await late

        assert checked_out(database) == 0


async def test_statement_that_fails_leaves_no_snapshot_behind(
    database: Database,
) -> None:
    async with database.snapshot() as session:
        with pytest.raises(DBAPIError):
            await session.scalar(select(literal_column("no_such_column")))
        assert checked_out(database) == 0
        assert await ids(session) == []


@pytest.mark.parametrize("times", [1, 2])
async def test_cancelled_snapshot_leaves_no_connection_and_no_transaction(
    database: Database, times: int
) -> None:
    begun = asyncio.Event()

    async def read() -> None:
        async with database.snapshot() as session:
            await ids(session)
            begun.set()
            await session.execute(select(column("x")).from_statement(text(SLOW)))

    reader = asyncio.create_task(read())
    await begun.wait()
    await asyncio.sleep(0.1)  # nothing says from here that the statement has begun
    for _ in range(times):
        reader.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({reader})

    assert checked_out(database) == 0
    await add(database, 1)
    assert await rows(database) == [1]


async def test_route_reads_one_state(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.get("/probe")
    async def probe(snapshot: Snapshot, reads: Read) -> list[list[int]]:
        found = [await ids(snapshot)]
        await add(database, 1)
        return [*found, await ids(snapshot), await ids(reads)]

    async with serve(app) as client:
        answer = await client.get("/probe")

    assert answer.json() == [[], [], [1]]
    assert checked_out(database) == 0


if DIALECT == "postgresql":

    async def test_function_that_writes_is_taken_for_no_failover(
        database: Database, caplog: pytest.LogCaptureFixture
    ) -> None:
        create = "CREATE FUNCTION add_probe() RETURNS bigint LANGUAGE sql AS"
        async with database.write() as session:
            body = "$$ INSERT INTO probes (id) VALUES (7) RETURNING id $$"
            await session.execute(text(f"{create} {body}"))
        try:
            async with database.snapshot() as snapshot:
                with pytest.raises(DBAPIError, match="read-only transaction"):
                    await snapshot.execute(select(func.add_probe()))
        finally:
            async with database.write() as session:
                await session.execute(text("DROP FUNCTION add_probe"))

        assert "connection pool retired" not in caplog.text
        assert await rows(database) == []

    async def test_local_settings_end_with_their_transaction(
        database: Database,
    ) -> None:
        tenant = select(func.current_setting("app.tenant", literal_column("true")))
        role = select(func.current_setting("app.role", literal_column("true")))
        for kind in (database.write, database.snapshot):
            async with kind(SETTINGS) as session:
                for _ in range(3):
                    assert await session.scalar(tenant) == "acme"
                    assert await session.scalar(role) == "O'Hara; --"
            async with kind() as session:
                assert not await session.scalar(tenant)
            async with database.read() as session:
                assert not await session.scalar(tenant)
        async with database.write(SETTINGS) as session:
            async with session.begin_nested():
                assert await session.scalar(tenant) == "acme"
            assert await session.scalar(tenant) == "acme"
        async with bulk_insert(database, SETTINGS) as connection:
            assert await connection.scalar(tenant) == "acme"
        async with export(database, SETTINGS) as connection:
            assert await (await connection.stream_scalars(tenant)).all() == ["acme"]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"app.tenant; --": "acme"}, "is no local setting"),
        ({"app..tenant": "acme"}, "is no local setting"),
        ({"": "acme"}, "is no local setting"),
        ({"app.tenant": 7}, "its value is a str"),
    ]
    if DIALECT == "postgresql"
    else [(SETTINGS, "no settings that end with a transaction")],
)
async def test_settings_that_cannot_be_are_refused_in_one_sentence(
    database: Database, wrong: Any, sentence: str
) -> None:
    for kind in (database.write, database.snapshot):
        with pytest.raises(InvalidRequestError, match=sentence):
            await kind(wrong).__aenter__()
    for of_bulk in (export, bulk_insert):
        with pytest.raises(InvalidRequestError, match=sentence):
            await of_bulk(database, wrong).__aenter__()
