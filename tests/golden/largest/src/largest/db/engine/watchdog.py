"""Watchdog: closes the connection of a server that does not answer in time."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import exc
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import await_only

from ..config.limits import RESET_SECONDS
from . import UNAWAITED
from .network import (
    BoundedCursor,
    Fileno,
    is_closed,
    peer_address,
    raise_lost,
    shut_down,
)
from .timing import Ticker

T = TypeVar("T")

CHECK_SECONDS = 0.1

logger = logging.getLogger(__name__)


class Watchdog:
    """Bounds every wait for the server, of all connections of one pool.

    To cancel the wait instead can take 10 s more: the driver tries to tell a server
    that does not answer. One timer for all connections costs a statement 10 us, a
    timer for each 40.
    """

    def __init__(self, fileno: Fileno, seconds: float, pool: str) -> None:
        self.seconds = seconds
        self._fileno = fileno
        self.pool = pool
        # Of each wait: connection, deadline, seconds allowed, context of the caller.
        self._armed: dict[Any, tuple[Any, float, float, Context]] = {}
        self._ticker = Ticker(CHECK_SECONDS, self._check)
        # Connections that a checkin has shut down.
        self.not_reset: set[Any] = set()

    def within(
        self, connection: Any, seconds: float, wait: Callable[..., T], *args: Any
    ) -> T:
        """Call `wait(*args)`, and close the connection if it takes longer."""
        # Of its own: another task may wait for a statement on this connection.
        key = object()
        deadline = monotonic() + seconds
        self._armed[key] = (connection, deadline, seconds, copy_context())
        if self._ticker.loop is not asyncio.get_running_loop():
            self._ticker.start()
        try:
            return wait(*args)
        finally:
            self._armed.pop(key, None)

    def arm(self, connection: Any, seconds: float) -> None:
        """As `within()`, until `disarm()`."""
        deadline = monotonic() + seconds
        self._armed[connection] = (connection, deadline, seconds, copy_context())
        self._ticker.start()

    def disarm(self, connection: Any) -> None:
        self._armed.pop(connection, None)

    def is_waiting(self, connection: Any) -> bool:
        """Whether a task waits for a statement on this connection."""
        return any(each[0] is connection for each in self._armed.values())

    def _check(self) -> bool:
        now = monotonic()
        for key, (connection, deadline, seconds, context) in list(self._armed.items()):
            if deadline < now:
                del self._armed[key]
                context.run(self._close, connection, seconds)
        return bool(self._armed)

    def shut_down(self, driver_connection: Any) -> None:
        shut_down(self._fileno, driver_connection)

    def is_closed(self, connection: Any) -> bool:
        return is_closed(self._fileno, connection.driver_connection)

    def _close(self, connection: Any, seconds: float) -> None:
        server = peer_address(self._fileno, connection.driver_connection)
        facts = {"seconds": seconds, "pool": self.pool, "server": server}
        text = "database gave no answer within %(seconds).1f s: connection closed"
        text += " (pool %(pool)s, %(server)s)"
        logger.warning(text, facts, extra=facts)
        self.shut_down(connection.driver_connection)


class BoundedDialect(DefaultDialect):
    """Mixin of a dialect: the watchdog bounds each call that waits for the server.

    Events of the engine would cost a read three times as much.
    """

    # By position: create_engine() finds no other parameters.
    def __init__(self, watchdog: Any = None, **options: Any) -> None:
        super().__init__(**options)
        self.watchdog: Watchdog = watchdog

    def do_execute(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_execute, cursor, *args)

    def do_executemany(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_executemany, cursor, *args)

    def do_execute_no_params(self, cursor: Any, *args: Any) -> None:
        self._execute(super().do_execute_no_params, cursor, *args)

    def do_commit(self, dbapi_connection: Any) -> None:
        if self.watchdog.is_waiting(dbapi_connection):
            self._cut(dbapi_connection)
            raise exc.IllegalStateChangeError(UNAWAITED)
        if self.watchdog.is_closed(dbapi_connection):
            self._end(raise_lost, dbapi_connection, RESET_SECONDS)
        self._end(super().do_commit, dbapi_connection, self.watchdog.seconds)

    def do_rollback(self, dbapi_connection: Any) -> None:
        if self.watchdog.is_waiting(dbapi_connection):
            self._cut(dbapi_connection)
            if not dbapi_connection.is_valid:  # the task has closed it
                return
        self._end(super().do_rollback, dbapi_connection, RESET_SECONDS)

    def do_close(self, dbapi_connection: Any) -> None:
        if self.has_terminate:
            # A graceful close that waits 2 s at most.
            self.do_terminate(dbapi_connection)
        else:  # of a driver whose close does not wait
            super().do_close(dbapi_connection)  # type: ignore[no-untyped-call]

    def do_terminate(self, dbapi_connection: Any) -> None:
        # Armed if the first connect was cancelled.
        self.watchdog.disarm(dbapi_connection)
        super().do_terminate(dbapi_connection)  # type: ignore[no-untyped-call]

    def initialize(self, connection: Any) -> None:
        """The queries of SQLAlchemy's first connect fail as any other statement.

        SQLAlchemy takes a lost connection for a question that the server does not
        understand, and fails at the next one with another error.
        """
        try:
            super().initialize(connection)
        except (NotImplementedError, exc.ResourceClosedError, TypeError) as error:
            lost = ConnectionError("connection lost at the first connect")
            # Not to be hidden, and invalidated.
            raise exc.DBAPIError(None, None, lost, False, True) from error

    def _execute(self, execute: Callable[..., None], cursor: Any, *args: Any) -> None:
        context = args[-1]
        seconds = context.execution_options.get("time_limit", self.watchdog.seconds)
        connection = context.root_connection.connection
        try:
            self.watchdog.within(connection, seconds, execute, cursor, *args)
        except (AssertionError, asyncio.CancelledError) as error:  # out of step
            _distrust(connection)
            # The driver's own check of its state would take the place of the
            # cancellation: a time limit would not recognise it as its own.
            if isinstance(error.__context__, asyncio.CancelledError):
                raise error.__context__ from None
            raise
        if getattr(cursor, "server_side", False):  # its rows are still to come
            bounded = partial(self.watchdog.within, connection, seconds)
            context.cursor = BoundedCursor(cursor, connection, bounded)

    def _end(self, end: Callable[[Any], None], connection: Any, seconds: float) -> None:
        try:
            self.watchdog.within(connection, seconds, end, connection)
        except BaseException:
            _distrust(connection)
            raise

    def _cut(self, connection: Any) -> None:
        """Let the task that waits fail: its answer could reach the next session."""
        self.watchdog.shut_down(connection.driver_connection)
        _distrust(connection)
        while self.watchdog.is_waiting(connection):
            await_only(asyncio.sleep(0))


def _distrust(connection: Any) -> None:
    """The protocol state is unknown: do not use the connection again."""
    # NotImplementedError: SQLAlchemy's first connect.
    with suppress(NotImplementedError):
        connection.info["reset_failed"] = True
