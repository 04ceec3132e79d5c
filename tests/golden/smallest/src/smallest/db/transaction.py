"""A transaction in which a statement has failed does not commit."""

import logging
from typing import Any

from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from .faults import describe

logger = logging.getLogger(__name__)


class WholeSession(Session):
    """Refuses to commit when a handler has swallowed a database error.

    The server answers COMMIT with a ROLLBACK then, or has rolled back long before, as
    after a deadlock: the handler's other writes would be lost behind a 200.
    """


def mark_failures(engine: AsyncEngine) -> None:
    """Let the sessions of this engine know what has become of their transaction."""
    event.listen(engine.sync_engine, "begin", _mark_whole)
    event.listen(engine.sync_engine, "rollback_savepoint", _mark_whole)
    event.listen(engine.sync_engine, "handle_error", _mark_failed)


def _mark_whole(connection: Connection, *_: Any) -> None:
    connection.info.pop("failed", None)


def _mark_failed(context: ExceptionContext) -> None:
    if context.connection is not None:
        context.connection.info["failed"] = True


@event.listens_for(WholeSession, "after_begin")
def _remember(session: Session, _: SessionTransaction, connection: Connection) -> None:
    session.info["connection"] = connection


# Not at the engine's "commit": there the connection would come back as it is.
@event.listens_for(WholeSession, "before_commit")
def _refuse_failed(session: Session) -> None:
    refuse_failed(session.info.get("connection"))


def refuse_failed(connection: Connection | None) -> None:
    if connection is None or connection.closed or connection.invalidated:
        return  # the handler has rolled back, or the connection is lost
    if connection.in_transaction() and connection.info.get("failed"):
        raise InvalidRequestError(
            "A statement has failed, so nothing can be committed: let the error rise,"
            " or try the statement in `async with session.begin_nested()`."
        )


async def roll_back(unit: AsyncSession | AsyncConnection) -> None:
    """A server that is gone has rolled back by itself, and what the handler has
    raised says more than that.
    """
    try:
        await unit.rollback()
    except DBAPIError as error:
        logger.warning("ROLLBACK failed: %s", describe(error))
