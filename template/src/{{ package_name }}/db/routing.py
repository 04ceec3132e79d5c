"""Routing: which server executes the statements of a read."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from .engine.dialect import rejects_write, with_snapshots
from .orm.guard import guard

# A statement that was lost after longer would take as long again: it is not repeated.
RETRY_WITHIN_SECONDS = 1


class Target:
    """A server to read from; on `snapshots` a connection begins a transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        guard(engine)
        self.engine = engine
        self.snapshots = with_snapshots(engine)


class Router(Protocol):
    async def choose(self, current: Target | None) -> Target:
        """The target of the next statement; `current` is that of the last one."""

    def candidates(self) -> Sequence[AsyncEngine]:
        """The engines that the first statement of a read may use now."""

    def retry(
        self, target: Target, error: SQLAlchemyError, seconds: float
    ) -> Target | None:
        """Where to repeat a statement that failed after so long; None: nowhere."""

    def committed(self, connection: Connection) -> None:
        """Called after each COMMIT, on the connection that has committed."""


class PrimaryOnly(Target):
    """The router of a service without replicas; it is its own target."""

    async def choose(self, current: Target | None) -> Target:
        return self

    def candidates(self) -> Sequence[AsyncEngine]:
        return (self.engine,)

    def retry(
        self, target: Target, error: SQLAlchemyError, seconds: float
    ) -> Target | None:
        lost = isinstance(error, DBAPIError) and error.connection_invalidated
        if not lost or rejects_write(error) or seconds >= RETRY_WITHIN_SECONDS:
            return None
        return target

    def committed(self, connection: Connection) -> None:
        pass


@asynccontextmanager
async def open_primary_only(engine: AsyncEngine, _: object) -> AsyncIterator[Router]:
    yield PrimaryOnly(engine)
