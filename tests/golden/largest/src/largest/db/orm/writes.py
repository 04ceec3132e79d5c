"""Sessions for writing: one transaction each."""

import logging
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
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
    """`info` has the router, the local settings if there are any, and the connection
    once a transaction has begun; "committed" after a COMMIT.
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


@event.listens_for(WriteOrmSession, "after_commit")
def _after_commit(session: Session) -> None:
    connection: Connection | None = session.info.get("connection")
    if connection is None or connection.closed or connection.in_transaction():
        return  # nothing was executed, or this was the end of a savepoint
    session.info["committed"] = True
    session.info["router"].committed(connection)


async def roll_back(unit: AsyncSession | AsyncConnection) -> None:
    """Roll back; a failure is logged only, since a lost server has rolled back itself,
    and the error of the handler says more.
    """
    try:
        await unit.rollback()
    except (DBAPIError, InvalidRequestError) as error:
        cause = safe_message(error)
        logger.warning("ROLLBACK failed: %s", cause, extra={"cause": cause})


async def end(session: AsyncSession) -> None:
    """Close for good. A task of the handler that is not awaited may be about to get a
    connection: `_after_begin` takes it away.
    """
    try:
        with suppress(InvalidRequestError):
            await session.run_sync(Session.close)
    finally:
        session.sync_session.__class__ = EndedSession
