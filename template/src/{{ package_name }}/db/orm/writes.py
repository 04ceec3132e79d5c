"""Sessions for writing: one transaction each."""

import logging
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, IllegalStateChangeError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from ..errors import safe_message
from . import ENDED

CLOSED = (
    "close() would lose what this session has written: it is committed at the end of"
    " its block, or before the response of its request starts."
)

logger = logging.getLogger(__name__)


class WriteSession(AsyncSession):
    """Ends with the block of `database.write()` alone, not with a block of its own.

    SQLAlchemy's would lose the rows of `async with session: session.add(row)`.
    """

    async def __aexit__(self, *_: object) -> None:
        return


class WriteOrmSession(Session):
    """Rejects a COMMIT after a statement has failed, even if the handler goes on.

    The server would answer COMMIT with a ROLLBACK, or has rolled back long before, as
    after a deadlock: the other writes of the handler would be lost behind a 200.
    `info` has the router, the local settings if there are any, and the connection
    once a transaction has begun.
    """

    def close(self) -> None:
        if self.in_transaction():
            raise InvalidRequestError(CLOSED)
        super().close()

    reset = close


class EndedSession(WriteOrmSession):
    """What a session is after its end: each use of it is an error.

    SQLAlchemy's own would begin a transaction that is never committed.
    """

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_") or name in ("close", "dispatch"):
            return super().__getattribute__(name)
        raise InvalidRequestError(ENDED.format("write"))


@event.listens_for(WriteOrmSession, "after_begin")
def _after_begin(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    if isinstance(session, EndedSession):
        connection.close()
        raise InvalidRequestError(ENDED.format("write"))
    session.info["connection"] = connection
    if not transaction.nested and (settings := session.info["settings"]):
        connection.execute(*settings)


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
    except (DBAPIError, IllegalStateChangeError) as error:
        cause = safe_message(error)
        logger.warning("ROLLBACK failed: %s", cause, extra={"cause": cause})


async def end(session: AsyncSession) -> None:
    """Close for good. A task of the handler that is not awaited may be about to get a
    connection: `_after_begin` takes it away.
    """
    try:
        with suppress(IllegalStateChangeError):
            await session.run_sync(Session.close)
    finally:
        session.sync_session.__class__ = EndedSession
