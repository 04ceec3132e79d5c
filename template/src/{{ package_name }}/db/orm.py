"""Sessions: `ReadOnlySession` executes SELECT, `WriteOrmSession` is one transaction."""

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol, TypeVar, TypeVarTuple

from sqlalchemy import (
    Connection,
    Engine,
    ExceptionContext,
    Result,
    ScalarResult,
    Select,
    event,
)
from sqlalchemy.exc import DBAPIError, InvalidRequestError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.util import greenlet_spawn

from .errors import safe_message
from .routing import Router, Target

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# As AsyncSession does: all rows are fetched while the session has its connection.
ALL_ROWS = {"prebuffer_rows": True}

logger = logging.getLogger(__name__)


class ReadSession(Protocol):
    """What a session for reading offers; a session for writing offers it too."""

    async def execute(self, statement: Select[*Ts], /) -> Result[*Ts]: ...
    async def scalars(self, statement: Select[T], /) -> ScalarResult[T]: ...
    async def scalar(self, statement: Select[T], /) -> T | None: ...
    async def get(
        self, entity: type[T], ident: Any, /, *, options: Sequence[ORMOption] = ()
    ) -> T | None: ...


WriteSession = AsyncSession


class ReadOnlySession:
    """Executes SELECT, each statement by itself: one round trip, no transaction.

    A connection is checked out for as long as a statement runs. All statements go to
    one server; the objects that they return are detached.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._target: Target | None = None

    async def execute(self, statement: Select[*Ts], /) -> Result[*Ts]:
        """InvalidRequestError unless the statement is a SELECT."""
        if not getattr(statement, "is_select", False):
            raise InvalidRequestError("A read session executes SELECT: use a Write.")
        return await self._run(
            lambda each: each.execute(statement, execution_options=ALL_ROWS)
        )

    async def scalars(self, statement: Select[T], /) -> ScalarResult[T]:
        return (await self.execute(statement)).scalars()

    async def scalar(self, statement: Select[T], /) -> T | None:
        return (await self.execute(statement)).scalar()

    async def get(
        self, entity: type[T], ident: Any, /, *, options: Sequence[ORMOption] = ()
    ) -> T | None:
        return await self._run(lambda each: each.get(entity, ident, options=options))

    async def _run(self, read: Callable[[Session], T]) -> T:
        target = self._target = await self._router.choose(self._target)
        began = monotonic()
        try:
            return await greenlet_spawn(_read, target.engine.sync_engine, read)
        except SQLAlchemyError as error:
            # No caller has seen a row yet: the statement can be repeated once.
            seconds = monotonic() - began
            other = self._router.retry(target, error, seconds)
            if not other:
                raise
        self._target = other
        return await greenlet_spawn(_read, other.engine.sync_engine, read)


def _read(engine: Engine, read: Callable[[Session], T]) -> T:
    with Session(engine, autoflush=False) as session:
        return read(session)


class WriteOrmSession(Session):
    """Rejects a COMMIT after a statement has failed, even if the handler goes on.

    The server would answer COMMIT with a ROLLBACK, or has rolled back long before, as
    after a deadlock: the other writes of the handler would be lost behind a 200.
    `info` has the router, and the connection once a transaction has begun.
    """


@event.listens_for(WriteOrmSession, "after_begin")
def _after_begin(
    session: Session, _: SessionTransaction, connection: Connection
) -> None:
    session.info["connection"] = connection


# Not at the engine's "commit": a connection would be returned with its transaction.
@event.listens_for(WriteOrmSession, "before_commit")
def _before_commit(session: Session) -> None:
    reject_commit_after_error(session.info.get("connection"))


@event.listens_for(WriteOrmSession, "after_commit")
def _after_commit(session: Session) -> None:
    connection: Connection | None = session.info.get("connection")
    if connection is None or connection.closed or connection.in_transaction():
        return  # nothing was executed, or this was the end of a savepoint
    session.info["router"].committed(connection)


def track_failures(engine: AsyncEngine) -> None:
    """Note on each connection whether a statement of its transaction has failed."""
    event.listen(engine.sync_engine, "begin", _clear_failed)
    event.listen(engine.sync_engine, "rollback_savepoint", _clear_failed)
    event.listen(engine.sync_engine, "handle_error", _set_failed)


def _clear_failed(connection: Connection, *_: Any) -> None:
    if not connection.invalidated:
        connection.info.pop("failed", None)


def _set_failed(context: ExceptionContext) -> None:
    if context.connection is not None:
        context.connection.info["failed"] = True


def reject_commit_after_error(connection: Connection | None) -> None:
    """InvalidRequestError if a statement of the transaction has failed."""
    if connection is None or connection.closed or connection.invalidated:
        return  # rolled back already, or lost
    if connection.in_transaction() and connection.info.get("failed"):
        raise InvalidRequestError(
            "A statement has failed, so nothing can be committed: let the error rise,"
            " or try the statement in `async with session.begin_nested()`."
        )


async def roll_back(unit: AsyncSession | AsyncConnection) -> None:
    """Roll back; a failure is logged only, since a lost server has rolled back itself,
    and the error of the handler says more.
    """
    try:
        await unit.rollback()
    except DBAPIError as error:
        logger.warning("ROLLBACK failed: %s", safe_message(error))
