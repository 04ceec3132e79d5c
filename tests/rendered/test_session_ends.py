"""Sessions after their end, and what they leave in the pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import StreamingResponse
from shop.db import Database, Read, Snapshot, Write
from sqlalchemy import event, insert, select
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession
from test_sessions import PROBES, Probe, checked_out, probes, rows

ID = PROBES.c.id
pytestmark = pytest.mark.usefixtures(probes.__name__)
KINDS = {"read": Read, "snapshot": Snapshot, "write": Write}

Use = Callable[[Any], Awaitable[Any]]


async def add(session: Any) -> None:
    session.add(Probe(id=9))


USES: dict[str, Use] = {
    "execute": lambda session: session.execute(select(ID)),
    "get": lambda session: session.get(Probe, 1),
    "scalars": lambda session: session.scalars(select(Probe)),
}
WRITES: dict[str, Use] = {
    "add": add,
    "flush": lambda session: session.flush(),
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "connection": lambda session: session.connection(),
    "refresh": lambda session: session.refresh(session.probe),
    "delete": lambda session: session.delete(session.probe),
    "merge": lambda session: session.merge(session.probe),
    "run_sync": lambda session: session.run_sync(lambda sync: sync.connection()),
}
ENDS = [
    *(("read", use) for use in USES),
    *(("snapshot", use) for use in USES),
    *(("write", use) for use in USES | WRITES),
]


@pytest.mark.parametrize(("kind", "use"), ENDS)
async def test_session_cannot_be_used_after_its_end(
    database: Database, kind: str, use: str
) -> None:
    async with getattr(database, kind)() as session:
        if kind == "write":
            session.probe = Probe(id=1)
            session.add(session.probe)
        else:
            await session.execute(select(ID))
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=rf"database\.{kind}\(\)"):
            await (USES | WRITES)[use](session)

    assert checked_out(database) == 0
    assert await rows(database) == ([1] if kind == "write" else [])


async def test_block_around_a_session_does_not_end_it(database: Database) -> None:
    """SQLAlchemy's would lose its rows."""
    async with database.write() as session:
        async with session:
            session.add(Probe(id=1))
        session.add(Probe(id=2))

    assert await rows(database) == [1, 2]


@pytest.mark.parametrize("way", ["close", "reset"])
async def test_session_is_not_closed_with_what_it_has_written(
    database: Database, way: str
) -> None:
    async def use() -> None:
        async with database.write() as session:
            session.add(Probe(id=1))
            await session.flush()
            await getattr(session, way)()

    with pytest.raises(InvalidRequestError, match="would lose"):
        await use()
    async with database.write() as session:
        session.add(Probe(id=2))
        await session.rollback()  # says what it does
        await getattr(session, way)()
        session.add(Probe(id=3))

    assert checked_out(database) == 0
    assert await rows(database) == [3]


class Late:
    """Uses a session when the answer has been sent."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.outcome = ""
        # In use of the pool of the service, before and after.
        self.checked_out: list[int] = []

    async def __call__(self, session: Any, database: Database) -> None:
        await self.answered.wait()
        self.checked_out.append(checked_out(database))
        try:
            if isinstance(session, AsyncSession):
                session.add(Probe(id=1))
                await session.flush()
            else:
                await session.get(Probe, 1)
        except InvalidRequestError as error:
            self.outcome = str(error)
        else:
            self.outcome = "no error"
        self.checked_out.append(checked_out(database))

    async def stream(self, session: Any, database: Database) -> AsyncIterator[str]:
        for _ in range(2):
            await self(session, database)
            yield "late"


def add_routes(app: FastAPI, kind: Any, late: Late) -> None:
    @app.post("/background")
    async def background(
        request: Request, session: kind, afterwards: BackgroundTasks
    ) -> None:
        late.answered.set()
        afterwards.add_task(late, session, request.state.database)

    @app.post("/task")
    async def task(request: Request, session: kind) -> None:
        use = late(session, request.state.database)
        late.task = asyncio.create_task(use)  # type: ignore[attr-defined]

    @app.post("/stream")
    async def stream(request: Request, session: kind) -> StreamingResponse:
        late.answered.set()
        return StreamingResponse(late.stream(session, request.state.database))


@pytest.mark.parametrize("kind", KINDS)
async def test_session_of_a_request_cannot_be_used_after_it(
    app: FastAPI, serve: Any, database: Database, kind: str
) -> None:
    """Not by a background task, a task of its own or a stream. A Read can: it has no
    end, and holds nothing.
    """
    late = Late()
    add_routes(app, KINDS[kind], late)
    async with serve(app) as client:
        for use in ("background", "task", "stream"):
            late.outcome = ""
            answer = await client.post(f"/{use}")
            late.answered.set()
            if use == "task":
                await late.task  # type: ignore[attr-defined]
            late.answered.clear()

            assert answer.status_code == 200
            expected = "no error" if kind == "read" else f"database.{kind}()"
            assert expected in late.outcome

    assert late.checked_out == [0] * 2 * 4
    assert checked_out(database) == 0
    assert await rows(database) == []


@pytest.mark.parametrize("is_cold", [False, True])
async def test_task_that_is_not_awaited_leaves_no_connection_open(
    app: FastAPI, serve: Any, database: Database, *, is_cold: bool
) -> None:
    """One that is in the middle of its work when the request ends."""
    tasks = []

    async def work(session: Any) -> None:
        for number in range(100):
            await session.execute(insert(PROBES).values(id=number))

    @app.post("/probe")
    async def write(session: Write) -> None:
        tasks.append(asyncio.create_task(work(session)))
        # The task has a connection, or is about to get one.
        await (asyncio.sleep(0) if is_cold else session.execute(select(ID)))

    async with serve(app) as client:
        for _ in range(5):
            await client.post("/probe")
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(each, Exception) for each in outcomes)
    assert checked_out(database) == 0
    assert await rows(database) == []
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=1000))


@pytest.mark.parametrize("sent", range(1, 6))
@pytest.mark.parametrize("way", ["flush", "execute", "connection"])
async def test_task_that_is_not_awaited_writes_nothing_after_a_rollback(
    database: Database, way: str, sent: int
) -> None:
    """Whichever statement of it runs when the session ends."""
    statements = 0
    begun = asyncio.Event()

    def count(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == sent:
            begun.set()

    async def work(session: Any) -> None:
        unit = await session.connection() if way == "connection" else session
        for number in range(10):
            if way != "flush":
                await unit.execute(insert(PROBES).values(id=number))
            else:
                session.add(Probe(id=number))
                await session.flush()

    async def fail() -> None:
        async with database.write() as session:
            tasks.append(asyncio.create_task(work(session)))
            await begun.wait()
            raise ZeroDivisionError

    tasks: list[asyncio.Task[None]] = []
    event.listen(database.engine.sync_engine, "before_cursor_execute", count)
    with pytest.raises(ZeroDivisionError):
        await fail()
    with suppress(Exception):
        await tasks[0]
    event.remove(database.engine.sync_engine, "before_cursor_execute", count)

    assert await rows(database) == []
    assert checked_out(database) == 0


async def test_connection_that_a_task_gets_after_the_end_is_returned(
    database: Database,
) -> None:
    """Whenever the session ends: within the connect, BEGIN or the statement."""
    tasks: list[asyncio.Task[Any]] = []
    outcomes: list[Any] = []  # an error keeps its frames, and what is in them

    async def use(steps: int) -> None:
        async with database.write() as session:
            tasks.append(asyncio.create_task(session.execute(select(ID))))
            for _ in range(steps):
                await asyncio.sleep(0)

    for steps in range(40):
        # The connection that is cut may be the first to say so.
        with suppress(InvalidRequestError, DBAPIError):
            await use(steps)
        outcomes += await asyncio.gather(tasks[-1], return_exceptions=True)
        assert checked_out(database) == 0


@pytest.mark.parametrize("kind", ["write", "snapshot"])
async def test_session_that_is_cancelled_again_and_again_leaves_no_connection(
    database: Database, kind: str
) -> None:
    """As a task group does: also while a ROLLBACK runs."""
    begun = asyncio.Event()

    async def use() -> None:
        async with getattr(database, kind)() as session:
            await session.execute(select(ID))
            begun.set()
            await asyncio.Event().wait()

    for _ in range(5):
        begun.clear()
        task = asyncio.create_task(use())
        await begun.wait()
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)

    assert checked_out(database) == 0
    async with database.write() as session:
        await session.execute(insert(PROBES).values(id=1))
    assert await rows(database) == [1]
