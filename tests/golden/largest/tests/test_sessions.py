"""What a commit, an error and a cancellation leave behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, cast, get_args

import pytest
from database import SLOW
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from largest.db.session import Database, Read, Write

DDL = text(
    "CREATE TABLE probes (id INTEGER PRIMARY KEY, parent INTEGER,"
    " FOREIGN KEY (parent) REFERENCES probes (id))"
)


class Local(DeclarativeBase):
    """Apart from the models: no migration knows this table."""


class Probe(Local):
    __tablename__ = "probes"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent: Mapped[int | None]


# What FastAPI calls for each kind.
SESSIONS = {get_args(kind)[1].dependency for kind in (Read, Write)}
PROBES = Local.metadata.tables["probes"]


@pytest.fixture(autouse=True)
async def probes(database: Database) -> AsyncIterator[None]:
    async with database.write() as session:
        await session.execute(DDL)
    yield
    async with database.write() as session:
        await session.execute(text("DROP TABLE probes"))


async def rows(database: Database) -> list[int]:
    async with database.read() as session:
        return list(await session.scalars(select(PROBES.c.id)))


async def test_write_is_there_when_the_answer_comes(
    app: FastAPI, serve: Any, database: Database
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == 200
    assert await rows(database) == [1]


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


@pytest.mark.parametrize(
    ("error", "status"), [(HTTPException(402), 402), (ZeroDivisionError(), 500)]
)
async def test_error_after_a_write_leaves_no_row(
    app: FastAPI, serve: Any, database: Database, error: Exception, status: int
) -> None:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(insert(PROBES).values(id=1))
        raise error

    async with serve(app) as client:
        answer = await client.post("/probe")

    assert answer.status_code == status
    assert await rows(database) == []


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
    await asyncio.sleep(0.2)  # nothing tells from here that the statement has begun
    writer.cancel()
    await asyncio.wait({writer})
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=2))

    assert await rows(database) == [2]


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


async def test_read_session_refuses_to_flush(database: Database) -> None:
    async with database.read() as session:
        cast(AsyncSession, session).add(Probe(id=1))
        with pytest.raises(InvalidRequestError, match="read session"):
            await cast(AsyncSession, session).flush()


def greedy(app: FastAPI) -> set[str]:
    """Routes that would hold two sessions: with them a full pool waits for itself."""

    def held(dependant: Dependant) -> set[object]:
        own = {dependant.call} & SESSIONS
        return own.union(*(held(inner) for inner in dependant.dependencies))

    return {
        str(route.path)
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute) and len(held(route.dependant)) > 1
    }


def test_no_route_holds_two_sessions(app: FastAPI) -> None:
    assert greedy(app) == set()


def test_two_sessions_of_a_route_are_found(app: FastAPI) -> None:
    async def read(session: Read) -> None: ...

    async def both(session: Write, user: Annotated[None, Depends(read)]) -> None: ...

    async def shared(session: Read, user: Annotated[None, Depends(read)]) -> None: ...

    inner, outer = APIRouter(), APIRouter()
    inner.add_api_route("/both", both)
    inner.add_api_route("/shared", shared)
    outer.include_router(inner, prefix="/inner")
    app.include_router(outer, prefix="/outer")

    assert greedy(app) == {"/outer/inner/both"}
