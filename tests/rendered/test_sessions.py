"""What an error and a cancellation leave behind, and what a read session refuses."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from importlib import import_module
from ssl import SSLCertVerificationError
from typing import Any

import pytest
from database import SLOW
from fastapi import FastAPI
from shop.db import Database, Write
from shop.db.config.backend import DIALECT
from shop.db.errors import (
    CommitOutcomeUnknown,
    OperationTimeout,
    classify,
    safe_message,
)
from sqlalchemy import delete, insert, inspect, select, text, update
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InvalidRequestError,
    OperationalError,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DDL = text(
    "CREATE TABLE probes (id INTEGER PRIMARY KEY, parent INTEGER,"
    " FOREIGN KEY (parent) REFERENCES probes (id))"
)


# Where a server has the isolation level of a session.
LEVEL = {
    "mysql": "SHOW VARIABLES WHERE Variable_name IN"
    " ('transaction_isolation', 'tx_isolation')",
    "postgresql": "SHOW transaction_isolation",
    "sqlite": "PRAGMA read_uncommitted",
}


class Local(DeclarativeBase):
    """Apart from the models: no migration knows this table."""


class Probe(Local):
    __tablename__ = "probes"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None]


PROBES = Local.metadata.tables["probes"]


@pytest.fixture(autouse=True)
async def probes(database: Database) -> AsyncIterator[None]:
    async with database.write() as session:
        await session.execute(DDL)
    yield
    async with database.write() as session:
        await session.execute(text("DROP TABLE probes"))


def checked_out(database: Database) -> int:
    pool: Any = database.engine.sync_engine.pool
    return int(pool.checkedout()) if hasattr(pool, "checkedout") else 0


async def rows(database: Database) -> list[int]:
    async with database.read() as session:
        return list(await session.scalars(select(PROBES.c.id)))


async def test_write_without_entities_is_not_flushed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush takes 30 us, also if there is nothing to do."""
    flushed: list[object] = []

    async def flush(session: object) -> None:
        flushed.append(session)

    monkeypatch.setattr(AsyncSession, "flush", flush)
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=1))

    assert await rows(database) == [1]
    assert flushed == []


async def test_what_fails_after_the_handler_is_no_success(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))
        session.add(Probe(id=1))  # reaches the database when the session ends

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 409
    assert await rows(database) == []


async def test_reference_to_nothing_is_409(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1, parent=99))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 409
    assert await rows(database) == []


async def test_object_whose_row_is_gone_is_409(
    app: FastAPI, serve: Any, database: Database
) -> None:
    """Read by one session, and deleted by another before the flush."""

    @app.post("/probe")
    async def write(session: Write) -> None:
        probe = Probe(id=1)
        session.add(probe)
        await session.flush()
        with_core = {"synchronize_session": False}
        await session.execute(delete(Probe), execution_options=with_core)
        probe.parent = 1

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 409
    assert answer.json()["type"] == "urn:problem:conflict"
    assert "meanwhile" in answer.json()["detail"]
    assert await rows(database) == []


async def test_upsert_of_many_rows(database: Database) -> None:
    """With a value in the part behind the rows."""
    dialect = import_module(f"sqlalchemy.dialects.{DIALECT}")
    upsert = dialect.insert(PROBES)
    if DIALECT == "mysql":
        upsert = upsert.on_duplicate_key_update(id=upsert.inserted.id + 10)
    else:
        changes = {"id": upsert.excluded.id + 10}
        upsert = upsert.on_conflict_do_update(index_elements=["id"], set_=changes)
    counts: list[int] = []
    async with database.write() as session:
        for _ in range(2):
            done: Any = await session.execute(upsert, [{"id": 1}, {"id": 2}, {"id": 3}])
            counts.append(done.rowcount)

    if DIALECT == "mysql":  # a row that is updated counts twice
        assert counts == [3, 6]
    assert sorted(await rows(database)) == [11, 12, 13]


async def test_cancelled_write_leaves_no_row_and_no_open_transaction(
    database: Database,
) -> None:
    written = asyncio.Event()

    async def write() -> None:
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=1))
            written.set()
            await asyncio.Event().wait()

    writer = asyncio.create_task(write())
    await written.wait()
    writer.cancel()
    await asyncio.wait({writer})
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=2))

    assert await rows(database) == [2]


async def test_write_cancelled_within_a_statement_frees_what_it_locked(
    database: Database,
) -> None:
    begins = asyncio.Event()

    async def write() -> None:
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=1))
            begins.set()
            await session.execute(text(SLOW))

    writer = asyncio.create_task(write())
    await begins.wait()
    await asyncio.sleep(0.2)  # nothing says from here that the statement has begun
    writer.cancel()
    await asyncio.wait({writer})
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=2))

    assert await rows(database) == [2]


async def test_statement_cancelled_at_any_step_is_cancelled(database: Database) -> None:
    """psycopg: an AssertionError, of a pipeline that was not entered to its end."""
    values = [{"id": each} for each in range(100)]
    begun: asyncio.Event

    async def write() -> None:
        async with database.write() as session:
            connection = await session.connection()
            time.sleep(0.02)  # noqa: ASYNC251 (psycopg yields once the loop was busy)
            begun.set()
            await connection.execute(insert(PROBES), values)
            await session.rollback()

    for steps in range(10):
        begun = asyncio.Event()
        writer = asyncio.create_task(write())
        await begun.wait()
        for _ in range(steps):
            await asyncio.sleep(0)
        writer.cancel()
        await asyncio.wait({writer})

        assert writer.cancelled() or writer.exception() is None
    assert await rows(database) == []


def test_error_of_a_certificate_keeps_its_words() -> None:
    """The error of `ssl` is a ValueError as well, as is that of a value."""
    lost = ConnectionError("certificate verify failed")
    lost.__cause__ = SSLCertVerificationError("hostname mismatch")

    assert safe_message(DBAPIError(None, None, lost)) == "certificate verify failed"


async def test_fault_of_a_task_group_has_its_answer(
    app: FastAPI, serve: Any, database: Database
) -> None:
    async def write() -> None:
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=1))

    @app.post("/probe")
    async def write_twice() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            group.create_task(write())

    async with serve(app) as client:
        answer = await client.post("/probe")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:problem:conflict")

    late, unknown, bug = OperationTimeout(), CommitOutcomeUnknown(), ValueError()
    assert classify(ExceptionGroup("", [late, unknown])) == "outcome-unknown"
    assert classify(ExceptionGroup("", [late, ExceptionGroup("", [bug])])) is None


async def test_answer_is_true_when_a_handler_swallows_an_error(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))
        with suppress(IntegrityError):
            await session.execute(insert(PROBES).values(id=1))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert (answer.status_code == 200) is (await rows(database) == [1])


async def test_error_in_a_savepoint_spoils_nothing_else(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))
        with suppress(IntegrityError):
            async with session.begin_nested():
                await session.execute(insert(PROBES).values(id=1))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 200
    assert await rows(database) == [1]


@pytest.mark.parametrize(
    "statement",
    [
        insert(PROBES).values(id=1),
        update(PROBES).values(id=1),
        delete(PROBES),
        text("INSERT INTO probes (id) VALUES (1)"),
    ],
    ids=["insert", "update", "delete", "text"],
)
async def test_read_session_refuses_to_write(
    database: Database, statement: Any
) -> None:
    async with database.read() as session:
        with pytest.raises(InvalidRequestError, match="read session"):
            await session.execute(statement)


async def test_change_of_an_object_that_was_read_reaches_no_database(
    database: Database,
) -> None:
    async with database.write() as writer:
        writer.add(Probe(id=1))
    async with database.read() as session:
        one, other = [await session.get(Probe, 1) for _ in range(2)]
        assert one
        assert one is not other
        assert inspect(one).detached
        one.id = 2
        await session.execute(select(Probe))

    assert await rows(database) == [1]


async def test_connection_lost_in_a_savepoint_is_an_error_of_the_database(
    database: Database,
) -> None:
    lost = OperationalError("SELECT 1", {}, OSError(), connection_invalidated=True)
    with pytest.raises(OperationalError) as caught:  # noqa: PT012
        async with database.write() as session, session.begin_nested():
            connection = await session.connection()
            await connection.invalidate()
            raise lost

    assert caught.value is lost


async def test_isolation_level_ends_with_its_write(database: Database) -> None:
    async def level(**options: Any) -> Any:
        async with database.write() as session:
            if options:
                await session.connection(execution_options=options)
            return (await session.execute(text(LEVEL[DIALECT]))).one()

    before = await level()
    await level(isolation_level="SERIALIZABLE")

    assert await level() == before
