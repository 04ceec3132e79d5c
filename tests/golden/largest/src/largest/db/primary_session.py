"""Sessions: one to read, one to write, and the only place that commits."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Annotated, Any, Protocol, TypeVar, TypeVarTuple, cast

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Result, ScalarResult, Select, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.orm.interfaces import ORMOption

from .dialect import transactional
from .engine import create_engine
from .faults import OutcomeUnknown
from .settings import DatabaseSettings
from .transaction import WholeSession, mark_failures, roll_back

ONLY_SELECT = "A read session executes SELECT: ask for a Write."
REPEAT_SECONDS = 1
GOODBYE_SECONDS = 2

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class ReadSession(Protocol):
    """What a session can do that must not write. A write session will do as well."""

    async def execute(self, statement: Select[*Ts], /) -> Result[*Ts]: ...
    async def scalars(self, statement: Select[T], /) -> ScalarResult[T]: ...
    async def scalar(self, statement: Select[T], /) -> T | None: ...
    async def get(
        self, entity: type[T], ident: Any, /, *, options: Sequence[ORMOption] = ()
    ) -> T | None: ...


WriteSession = AsyncSession


class Database:
    """Two kinds of session over one pool. Hold one session at a time, of one kind:
    whoever holds two can wait for the second until everybody does.
    """

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        self.engine = engine
        self.writes = transactional(engine)
        mark_failures(self.writes)
        self.settings = settings
        self.exports = asyncio.Semaphore(settings.exports_at_once)
        # COMMITs that were cancelled without an answer: their outcome is unknown.
        self.interrupted_commits = 0

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Every statement by itself: one round trip, no transaction, no snapshot."""
        async with AsyncSession(
            self.engine, sync_session_class=ReadOnly, autoflush=False
        ) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end, rolled back by any exception."""
        async with AsyncSession(
            self.writes, sync_session_class=WholeSession, expire_on_commit=False
        ) as session:
            try:
                yield session
                # What fails here has not reached COMMIT: its outcome is known.
                await session.flush()
                await self.commit(session)
            except BaseException:
                await roll_back(session)
                raise

    async def commit(self, unit: AsyncSession | AsyncConnection) -> None:
        """The one place that commits, and so the only one that may not know."""
        try:
            await unit.commit()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise OutcomeUnknown("connection lost during COMMIT") from error
            raise
        except asyncio.CancelledError:
            self.interrupted_commits += 1
            raise

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The one way in, for the service, scripts and tests alike."""
    async with closing(create_engine(settings)) as engine:
        yield Database(engine, settings)


@asynccontextmanager
async def closing(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        yield engine
    finally:
        # A driver may take leave of its server, and wait for one that says nothing.
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await engine.dispose()


async def _read(connection: HTTPConnection) -> AsyncIterator[ReadSession]:
    async with connection.state.database.read() as session:
        yield session


async def _write(connection: HTTPConnection) -> AsyncIterator[WriteSession]:
    async with connection.state.database.write() as session:
        yield session


# With scope="function" the session ends, and commits, before the response starts:
# with FastAPI's default a failed COMMIT would come after the client's 200.
Read = Annotated[ReadSession, Depends(_read, scope="function")]
Write = Annotated[WriteSession, Depends(_write, scope="function")]


class ReadOnly(Session):
    """Refuses what `ReadSession` does not offer, should somebody come by another way.

    Listening to the session costs a read 14 us; to the engine, 55.
    """

    def may_repeat(self, error: SQLAlchemyError, seconds: float) -> bool:
        """Whether a statement that failed after so long is tried once more.

        Nobody has seen a row yet. What has run for long would do so again: it is not
        repeated, else the caller would wait twice.
        """
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        return lost and seconds < REPEAT_SECONDS


@event.listens_for(ReadOnly, "before_flush")
def _refuse_to_flush(*_: Any) -> None:
    raise InvalidRequestError(ONLY_SELECT)


@event.listens_for(ReadOnly, "do_orm_execute")
def _select(state: ORMExecuteState) -> Result[Any]:
    """Execute a SELECT, and once more if its connection turns out to be lost."""
    if not state.is_select:
        raise InvalidRequestError(ONLY_SELECT)
    started = monotonic()
    try:
        return state.invoke_statement()
    except SQLAlchemyError as error:
        session = cast("ReadOnly", state.session)
        if not session.may_repeat(error, monotonic() - started):
            raise
    # Detached, so that the rollback does not expire what has been read before.
    state.session.expunge_all()
    state.session.rollback()
    return state.invoke_statement()
