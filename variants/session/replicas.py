"""Sessions: a read goes to a replica, and still sees what was written before."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from . import primary_session
from .engine import create_engine
from .faults import describe
from .log_position import read_written
from .position import NOWHERE, SEEN, Seen
from .primary_session import Read, ReadOnly, ReadSession, Write, WriteSession, closing
from .replica import Replica
from .replicas import Replicas
from .settings import DatabaseSettings

__all__ = ["Database", "Read", "ReadSession", "Write", "WriteSession", "open_database"]

logger = logging.getLogger(__name__)


class Database(primary_session.Database):
    """Without DATABASE_REPLICA_URLS it reads from the primary, as it would anyway."""

    def __init__(self, engine: AsyncEngine, settings: DatabaseSettings) -> None:
        super().__init__(engine, settings)
        self.replicas = Replicas(engine, settings)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Every statement by itself, all of them on one server."""
        if not self.replicas:
            async with super().read() as session:
                yield session
            return
        seen = SEEN.get()
        replica = await self.replicas.choose(seen.position if seen else {})
        async with AsyncSession(
            replica.engine if replica else self.engine,
            sync_session_class=_Movable,
            autoflush=False,
            info={"database": self, "replica": replica},
        ) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[WriteSession]:
        """One transaction: committed at the end, rolled back by any exception."""
        async with super().write() as session:
            if self.replicas:
                event.listen(session.sync_session, "after_commit", self._remember)
            yield session

    async def commit(self, unit: AsyncSession | AsyncConnection) -> None:
        await super().commit(unit)
        if self.replicas and isinstance(unit, AsyncConnection):
            await unit.run_sync(self._see)

    def _remember(self, session: Session) -> None:
        connection: Connection | None = session.info.get("connection")
        if connection is None or connection.closed or connection.in_transaction():
            return  # nothing was executed, or it was the end of a savepoint
        self._see(connection)

    def _see(self, connection: Connection) -> None:
        """Where the log is after a commit, so that the client's next read is there."""
        try:
            position = read_written(connection, self.engine.sync_engine)
            self.replicas.expect(position)
        except SQLAlchemyError as error:  # what is committed stays so
            logger.warning("position after COMMIT unknown: %s", describe(error))
            position = NOWHERE
        if not (seen := SEEN.get()):
            SEEN.set(seen := Seen())
        seen.add(position)


@asynccontextmanager
async def open_database(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """The one way in, for the service, scripts and tests alike."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(closing(create_engine(settings)))
        database = Database(engine, settings)
        await database.replicas.enter(stack)
        yield database


class _Movable(ReadOnly):
    """Repeats on the primary what has failed on a replica, and stays there."""

    def may_repeat(self, error: SQLAlchemyError, seconds: float) -> bool:
        replica: Replica | None = self.info["replica"]
        if not replica:
            return super().may_repeat(error, seconds)
        if not replica.is_at_fault(error):
            return False
        self._move("failed")
        return True

    def get_bind(self, *args: Any, **kwargs: Any) -> Engine | Connection:
        replica: Replica | None = self.info["replica"]
        if replica and replica.trouble and not self.in_transaction():
            self._move("banned")  # since it was chosen, and not read from yet
        return super().get_bind(*args, **kwargs)

    def _move(self, reason: str) -> None:
        database: Database = self.info["database"]
        database.replicas.count_move(self.info["replica"], reason)
        self.info["replica"] = None
        self.bind = database.engine.sync_engine
