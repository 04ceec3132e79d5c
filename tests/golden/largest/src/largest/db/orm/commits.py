"""COMMIT: what is true of one, whichever code has sent it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..engine.dialect import is_rolled_back
from ..errors import CommitOutcomeUnknown, FaultKind, classify, safe_message

FAILED = (
    "A statement has failed, so nothing can be committed: let the error rise, or try"
    " the statement in `async with session.begin_nested()`."
)
LOST = "The connection was lost, and its transaction with it: let the error rise."


class Commits:
    """Watches each transaction of an engine: that of a session, of a bulk insert, and
    those that a handler begins or commits itself.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        # Cancelled without an answer, or after a part was committed: of these the
        # outcome is unknown.
        self.interrupted = 0
        # Connections of which COMMIT was the last thing that was sent; of which one
        # was executed before.
        self._sent: WeakSet[Connection] = WeakSet()
        self._done: WeakSet[Connection] = WeakSet()
        # The connection of the driver in which each has begun first.
        self._begun: WeakKeyDictionary[Connection, Any] = WeakKeyDictionary()
        event.listen(engine.sync_engine, "begin", begin_by(self._on_begin))
        event.listen(engine.sync_engine, "commit", self._on_commit)
        event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_failed)
        event.listen(engine.sync_engine, "rollback_savepoint", _clear_failed)
        event.listen(engine.sync_engine, "handle_error", self._on_error)

    def any_of(self, connection: Connection | None) -> bool:
        return connection in self._done or connection in self._sent

    def _on_begin(self, connection: Connection) -> None:
        begun = connection.connection.dbapi_connection
        if self._begun.setdefault(connection, begun) is not begun:
            # SQLAlchemy has connected again: without the isolation level of this one
            # each statement would commit by itself.
            lost = ConnectionError(LOST)
            raise DBAPIError(None, None, lost, connection_invalidated=True)
        _clear_failed(connection)
        if connection in self._sent:
            self._sent.remove(connection)
            self._done.add(connection)

    def _on_commit(self, connection: Connection) -> None:
        """InvalidRequestError if a statement of the transaction has failed.

        The server would answer COMMIT with a ROLLBACK, or has rolled back long before,
        as after a deadlock: the other writes would be lost behind a 200.
        """
        if not connection.invalidated and connection.info.get("failed"):
            # Or SQLAlchemy would return the connection with its transaction.
            with suppress(connection.dialect.loaded_dbapi.Error):
                connection.dialect.do_rollback(connection.connection)
            raise InvalidRequestError(FAILED)
        self._sent.add(connection)

    def _on_error(self, context: ExceptionContext) -> CommitOutcomeUnknown | None:
        connection = context.connection
        options = getattr(context.execution_context, "execution_options", {})
        # Or a question of SQLAlchemy's own: whether there is a table.
        if connection is None or "skip_user_error_events" in options:
            return None
        connection.info["failed"] = True
        if connection not in self._sent:
            return None
        self._sent.remove(connection)
        if isinstance(context.original_exception, asyncio.CancelledError):
            self.interrupted += 1
        error = context.sqlalchemy_exception or context.original_exception
        error = getattr(context, "chained_exception", None) or error
        if not context.is_disconnect or not isinstance(error, DBAPIError):
            return None
        if is_rolled_back(error):
            return None
        return CommitOutcomeUnknown("connection lost during COMMIT")

    def reject_partial(self, error: BaseException) -> None:
        """After a COMMIT of the handler's own no error means "nothing was changed"."""
        if isinstance(error, asyncio.CancelledError):
            self.interrupted += 1
        fault = classify(error)
        if fault and fault != FaultKind.OUTCOME_UNKNOWN:
            text = f"a part was committed before {fault}: {safe_message(error)}"
            raise CommitOutcomeUnknown(text) from None


def begin_by(begin: Callable[[Connection], object]) -> Callable[[Connection], None]:
    """A listener of the event "begin", by which a connection begins or is closed.

    After an error of a listener SQLAlchemy would execute the next statements of the
    connection outside of a transaction.
    """

    def begin_or_close(connection: Connection) -> None:
        try:
            begin(connection)
        except BaseException:
            connection.close()
            raise

    return begin_or_close


def _refuse_if_failed(connection: Connection, *_: Any) -> None:
    """A deadlock, or a full disk, has rolled back all: where the server goes on without
    a transaction, the next statement would commit by itself.
    """
    # BEGIN itself comes before the transaction.
    if connection.in_transaction() and connection.info.get("failed"):
        raise InvalidRequestError(FAILED)


def _clear_failed(connection: Connection, *_: Any) -> None:
    if not connection.invalidated:
        connection.info.pop("failed", None)
