"""The primary as the server of a read: the only one in a service without replicas."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from .engine.dialect import rejects_write, with_snapshots
from .routing import Router, Target

# A statement that was lost after longer would take as long again: it is not repeated.
RETRY_WITHIN_SECONDS = 1


class PrimaryOnly:
    """The router of a service without replicas, and its own target; the router of
    replicas falls back to it.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.snapshots = with_snapshots(engine)

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

    def may_have_committed(self) -> None:
        pass


@asynccontextmanager
async def open_primary_only(engine: AsyncEngine, _: object) -> AsyncIterator[Router]:
    yield PrimaryOnly(engine)
