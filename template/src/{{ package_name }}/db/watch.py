"""Bounded waits: a silent connection is cut, an idle one is asked before its use."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, ExceptionContext, event, exc
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection as Connection
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from .deadline import seconds_left
from .dialect import is_read_only
from .sockets import cut, keep_alive, socket_of

if TYPE_CHECKING:
    from .settings import DatabaseSettings

PING_SECONDS = 1
# For the ROLLBACK of a connection that comes back. A long one goes on without us.
RESET_SECONDS = 1
# Used within the last second: most likely still there, so not worth a round trip.
IDLE_SECONDS = 1
# Below the usual 1800 s after which balancers and proxies close a connection, and
# each a little different: else all come to their end, and reconnect, at once.
LIFETIME_SECONDS = 1500
LOOK_SECONDS = 0.1
JITTER = 0.2
# A pool may be retired once a second for as long as a name leads to a standby.
RETIRED_LOG_SECONDS = 10

logger = logging.getLogger(__name__)
_WATCHES: "WeakKeyDictionary[Engine, Watch]" = WeakKeyDictionary()


def bounded(
    connect: Callable[..., Awaitable[Any]],
    settings: "DatabaseSettings",
    *,
    fileno: Callable[[Any], int],
    failure: Callable[[str], Exception],
) -> Callable[..., Awaitable[Any]]:
    """Wrap a driver's connect(): its own limit, if any, forgets the handshake.

    An OSError could come from anywhere in the service, `failure` is the database's.
    """

    async def connect_in_time(*args: Any, **kwargs: Any) -> Any:
        seconds = seconds_left(settings.database_connect_timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                login = {"password": await settings.password()}
                connection = await connect(*args, **kwargs, **login)
                with socket_of(fileno, connection) as tcp:
                    keep_alive(tcp)
                return connection
        except TimeoutError as error:
            raise failure(f"cannot connect: no answer in {seconds:.1f} s") from error
        except OSError as error:
            raise failure(f"cannot connect: {error}") from error

    return connect_in_time


class Watch:
    """Looks after the connections of one engine.

    The bound is a timer that shuts the socket. To cancel the wait instead can take
    10 s more, in which the driver tries to tell a silent server about it.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: "DatabaseSettings",
        *,
        ping: Callable[[Any], Awaitable[Any]],
        fileno: Callable[[Any], int],
    ) -> None:
        self._ping = ping
        self._fileno = fileno
        # Which connections the server shall answer on: by when, after how many seconds,
        # and for whom.
        self._expected: dict[Any, tuple[float, float, Context]] = {}
        self._looks_in: asyncio.AbstractEventLoop | None = None
        self._statement_seconds = settings.database_client_timeout_seconds
        self.retired_at = self._logged_at = 0.0
        _WATCHES[engine.sync_engine] = self
        # Before SQLAlchemy has a first look at the server, which knows no limit.
        event.listen(engine.sync_engine, "first_connect", self._on_first, insert=True)
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        event.listen(engine.sync_engine, "checkin", self._on_checkin)
        # Whatever waits for the server goes through these methods of the dialect;
        # the engine's events would cost a read three times as much.
        dialect = engine.dialect
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, self._timed_statement(getattr(dialect, name)))
        bounds = {"do_commit": self._statement_seconds, "do_rollback": RESET_SECONDS}
        for name, seconds in bounds.items():
            setattr(dialect, name, self._timed(getattr(dialect, name), seconds))
        setattr(dialect, "initialize", _first_look(dialect.initialize))  # noqa: B010
        event.listen(engine.sync_engine, "handle_error", self._leave_reader)

    def retire(self, reason: str) -> None:
        """Replace each connection that is open now, at its next checkout at the latest.

        What is at work goes on to its end: nothing is opened beside it, so the server
        has no more connections than the budget counts.
        """
        self.retired_at = now = monotonic()
        if reason and now - self._logged_at > RETIRED_LOG_SECONDS:
            self._logged_at = now
            logger.warning("connection pool retired: %s", reason)

    def _on_first(self, connection: Connection, _: ConnectionPoolEntry) -> None:
        self._expect(connection, seconds_left(self._statement_seconds))

    def _on_connect(self, connection: Connection, entry: ConnectionPoolEntry) -> None:
        self._expected.pop(connection, None)
        age = LIFETIME_SECONDS * random.uniform(1 - JITTER, 1)  # noqa: S311
        entry.info["used_at"] = entry.info["opened_at"] = monotonic()
        entry.info["old_at"] = monotonic() + age

    def _on_checkout(
        self, connection: Connection, entry: ConnectionPoolEntry, _: Any
    ) -> None:
        now = monotonic()
        if entry.info["opened_at"] <= self.retired_at:
            raise exc.DisconnectionError("moved")
        if now > entry.info["old_at"]:
            raise exc.DisconnectionError("lifetime")
        if now - entry.info["used_at"] < IDLE_SECONDS:
            return
        try:
            self._expect(connection, seconds_left(PING_SECONDS))
            connection.run_async(self._ping)
        except Exception as error:
            # Refused at once: this one was closed. No answer: the network is gone,
            # and with it all connections from before.
            if monotonic() - now >= PING_SECONDS:
                self.retire("a connection gave no answer to the ping")
            raise exc.DisconnectionError("validation") from error
        finally:
            self._expected.pop(connection, None)

    def _on_checkin(self, _: Any, entry: ConnectionPoolEntry) -> None:
        if entry.info.pop("unended", False):
            entry.invalidate()
        entry.info["used_at"] = monotonic()

    def _timed_statement(self, execute: Callable[..., None]) -> Callable[..., None]:
        def timed(cursor: Any, *arguments: Any) -> None:
            context: ExecutionContext = arguments[-1]
            options = context.execution_options
            seconds = options.get("time_limit", self._statement_seconds)
            connection = context.root_connection.connection
            self._expect(connection, seconds)
            try:
                execute(cursor, *arguments)
            finally:
                self._expected.pop(connection, None)
            if getattr(cursor, "server_side", False):  # its rows are still to come
                context.cursor = _TimedCursor(
                    cursor, partial(self._fetch, connection, seconds)
                )

        return timed

    def _fetch(self, connection: Any, seconds: float, fetch: Callable[[], Any]) -> Any:
        self._expect(connection, seconds)
        try:
            return fetch()
        except Exception as error:
            # SQLAlchemy 2.1 translates the errors of a statement. For some drivers it
            # leaves those of a fetch as they are: they would be no DBAPIError.
            connection.dbapi_connection._handle_exception(error)
            raise
        finally:
            self._expected.pop(connection, None)

    def _timed(self, end: Callable[[Any], None], seconds: float) -> Callable[..., None]:
        def timed(connection: Any) -> None:
            self._expect(connection, seconds)
            try:
                end(connection)
            except BaseException:
                # Who knows what was sent, and whose answer comes next: a task may
                # still use the connection, which must not come back as it is.
                with suppress(NotImplementedError):  # the dialect's very first look
                    connection.info["unended"] = True
                raise
            finally:
                self._expected.pop(connection, None)

        return timed

    def _expect(self, connection: Any, seconds: float) -> None:
        """Cut the connection unless it is taken off the list in time."""
        self._expected[connection] = (monotonic() + seconds, seconds, copy_context())
        loop = asyncio.get_running_loop()
        if self._looks_in is not loop:  # none yet, or that of before a fork
            self._looks_in = loop
            loop.call_later(LOOK_SECONDS, self._look)

    def _leave_reader(self, context: ExceptionContext) -> None:
        """A server that only reads is not the primary any more: no connection of the
        pool leads where it should.
        """
        # Not at COMMIT: what is called lost there may have been committed, and this is
        # not.
        if context.statement and is_read_only(context.original_exception):
            context.is_disconnect = True
            context.invalidate_pool_on_disconnect = False
            self.retire("the server refuses to write, so it is not the primary")

    def _look(self) -> None:
        # One timer for all: a timer each would cost a read 40 us, this 10.
        for connection, (until, seconds, context) in list(self._expected.items()):
            if until < monotonic():
                del self._expected[connection]
                context.run(self._cut, connection, seconds)
        loop = asyncio.get_running_loop()
        self._looks_in = loop if self._expected else None
        if self._expected:
            loop.call_later(LOOK_SECONDS, self._look)

    def _cut(self, connection: Any, seconds: float) -> None:
        logger.warning("No answer in %.1f s: connection cut.", seconds)
        cut(self._fileno, connection.driver_connection)


class _TimedCursor:
    """A cursor of the server, each fetch of which is bounded as a statement is."""

    def __init__(self, cursor: Any, timed: Callable[[Callable[[], Any]], Any]) -> None:
        self._cursor = cursor
        self._timed = timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        return self._timed(self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._timed(partial(self._cursor.fetchmany, size))

    def fetchall(self) -> Any:
        return self._timed(self._cursor.fetchall)


def _first_look(initialize: Callable[[Any], None]) -> Callable[[Any], None]:
    """Let SQLAlchemy's first look at a server end as any other use of it.

    It takes a lost connection for a question that its server does not understand, and
    stumbles over the next one.
    """

    def look(connection: Any) -> None:
        try:
            initialize(connection)
        except (NotImplementedError, exc.ResourceClosedError, TypeError) as error:
            lost = ConnectionError("connection lost at the first look at the server")
            raise exc.DBAPIError(
                None, None, lost, connection_invalidated=True
            ) from error

    return look


def retire(engine: AsyncEngine, reason: str = "") -> None:
    """The one way to abandon a pool. Without a reason the caller has logged it."""
    _WATCHES[engine.sync_engine].retire(reason)


def retired_at(engine: AsyncEngine) -> float:
    return _WATCHES[engine.sync_engine].retired_at
