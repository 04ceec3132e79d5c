"""Routing: which server executes the statements of a read."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine


class Target(Protocol):
    """A server to read from; on `snapshots` a connection begins a transaction."""

    engine: AsyncEngine
    snapshots: AsyncEngine


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

    def may_have_committed(self) -> None:
        """Called after an error that leaves it open whether anything is committed."""
