"""The database: sessions to read and to write."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, ClassVar

from fastapi import Depends
from fastapi.requests import HTTPConnection
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from .config.settings import ConnectionSettings
from .engine.dialect import local_settings, with_transactions
from .errors import CommitOutcomeUnknown
from .orm.commits import Commits, begin_by
from .orm.guard import guard
from .orm.reads import ReadOnlySession, ReadSession, SnapshotSession
from .orm.writes import WriteOrmSession, WriteSession, end, roll_back
from .routing import Router


class Database:
    """Three kinds of session over the connection pools of a service.

    Hold one `write()` or `snapshot()` at a time: tasks that hold one each and wait for
    a second can use up the pool, and then all wait for each other.
    """

    # The dependencies that are sessions; whether it has to be one of the primary.
    sessions: ClassVar[dict[Any, bool]] = {}

    def __init__(
        self, engine: AsyncEngine, settings: ConnectionSettings, router: Router
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.router = router
        self.writes = with_transactions(engine, begin_by)
        self.commits = Commits(self.writes)
        guard(engine)
        self.exports = asyncio.Semaphore(settings.exports_at_once)
        # Whether a connection was ever opened.
        self.was_reached = False
        event.listen(engine.sync_engine, "connect", self._note_reached)

    def _note_reached(self, *_: object) -> None:
        self.was_reached = True

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Each statement by itself: one round trip, no transaction, no snapshot."""
        session = ReadOnlySession(self.router)
        try:
            yield session
        finally:
            session.end()

    @asynccontextmanager
    async def snapshot(
        self, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[ReadSession]:
        """One transaction that only reads: all its SELECTs see one state.

        `settings` end with it: see `write()`.
        """
        session = SnapshotSession(self.router, local_settings(settings))
        try:
            yield session
        finally:
            await session.close()

    @asynccontextmanager
    async def write(
        self, settings: Mapping[str, str] | None = None
    ) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end, rolled back by any exception.

        `settings` of the server end with it: {"app.tenant": "acme"} is what
        `current_setting('app.tenant')` returns in a policy of row level security.
        """
        session = WriteSession(
            self.writes,
            sync_session_class=WriteOrmSession,
            expire_on_commit=False,
            info={"router": self.router, "settings": local_settings(settings)},
        )
        try:
            yield session
            # A failure here has not reached COMMIT: its outcome is known.
            if session.new or session.dirty or session.deleted:
                await session.flush()
            await session.commit()
        except BaseException as error:
            await roll_back(session)
            is_partial = "committed" in session.info
            if is_partial or isinstance(error, CommitOutcomeUnknown):
                self.router.may_have_committed()
            if is_partial:
                self.commits.reject_partial(error)
            raise
        finally:
            await end(session)

    def engines_for(self, dependencies: Iterable[Any]) -> Sequence[AsyncEngine]:
        """Those of which one will give the connection; none without a session."""
        primary = [
            self.sessions[each] for each in dependencies if each in self.sessions
        ]
        if any(primary):
            return (self.engine,)
        return self.router.candidates() if primary else ()

    async def ping(self) -> None:
        async with self.engine.connect() as connection:
            await connection.exec_driver_sql("SELECT 1")


async def _read(connection: HTTPConnection) -> ReadSession:
    return ReadOnlySession(connection.state.database.router)


async def _snapshot(connection: HTTPConnection) -> AsyncIterator[ReadSession]:
    async with connection.state.database.snapshot() as session:
        yield session


async def _write(connection: HTTPConnection) -> AsyncIterator[WriteSession]:
    async with connection.state.database.write() as session:
        yield session


# It holds nothing between its statements, so that of a handler has no end.
Read = Annotated[ReadSession, Depends(_read)]
# With scope="function" the session ends, and commits, before the response starts:
# with FastAPI's default a failed COMMIT would come after the client's 200.
Snapshot = Annotated[ReadSession, Depends(_snapshot, scope="function")]
Write = Annotated[WriteSession, Depends(_write, scope="function")]

Database.sessions.update({_read: False, _snapshot: False, _write: True})
