"""Sessions: one to read, one to write, and the only place that commits."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Protocol, TypeVar, TypeVarTuple

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import Result, ScalarResult, Select, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.orm.interfaces import ORMOption

from .connect import transactional
from .engine import create_engine
from .faults import OutcomeUnknown
from .settings import DatabaseSettings

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

    def __init__(self, engine: AsyncEngine) -> None:
        self._reads = engine
        self._writes = transactional(engine)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Every statement by itself: one round trip, no transaction, no snapshot."""
        async with AsyncSession(
            self._reads, sync_session_class=_ReadOnly, autoflush=False
        ) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end, rolled back by any exception."""
        async with AsyncSession(self._writes, expire_on_commit=False) as session:
            yield session
            # What fails here has not reached COMMIT: its outcome is known.
            await session.flush()
            await _commit(session)

    async def ping(self) -> None:
        async with self._reads.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The one way in, for the service, scripts and tests alike."""
    engine = create_engine(settings)
    try:
        yield Database(engine)
    finally:
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


async def _commit(session: AsyncSession) -> None:
    try:
        await session.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise OutcomeUnknown("connection lost during COMMIT") from error
        raise
    except OSError as error:
        # A driver's own time limit can surface as a bare TimeoutError.
        raise OutcomeUnknown("no answer to COMMIT") from error


class _ReadOnly(Session):
    """Refuses what `ReadSession` does not offer, should somebody come by another way.

    Listening to the session costs a read 14 us; to the engine, 55.
    """


@event.listens_for(_ReadOnly, "before_flush")
@event.listens_for(_ReadOnly, "do_orm_execute")
def _refuse_to_write(doing: Session | ORMExecuteState, *_: Any) -> None:
    if not getattr(doing, "is_select", False):
        raise InvalidRequestError("A read session executes SELECT: ask for a Write.")
