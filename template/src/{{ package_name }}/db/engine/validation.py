"""Validation: a connection that is old, dead, or leads elsewhere is replaced."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection as Connection
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from ..config.limits import IDLE_SECONDS, LIFETIME_SECONDS, PING_SECONDS, RESET_SECONDS
from .dialect import is_read_only
from .network import Fileno, LostBeforeCommit, keep_alive
from .timing import remaining

# Connections opened together must not expire together.
JITTER = 0.2
# While a name leads to a standby its pool may be retired once a second.
RETIRED_LOG_SECONDS = 10

logger = logging.getLogger(__name__)
_POOLS: "WeakKeyDictionary[Engine, Validation]" = WeakKeyDictionary()


def connect_with_timeout(
    connect: Callable[..., Awaitable[Any]],
    password: Callable[[], Awaitable[str | None]],
    timeout: float,
    *,
    fileno: Fileno,
    failure: Callable[[str], Exception],
) -> Callable[..., Awaitable[Any]]:
    """Wrap a driver's connect(), whose own timeout does not bound the handshake.

    `failure` makes an error of the driver: an OSError might come from anywhere.
    """

    async def connect_in_time(*args: Any, **kwargs: Any) -> Any:
        seconds = remaining(timeout)
        try:
            async with asyncio.timeout(seconds):
                login = {"password": await password()}
                connection = await connect(*args, **kwargs, **login)
                keep_alive(fileno, connection)
                return connection
        except TimeoutError as error:
            raise failure(f"cannot connect: no answer in {seconds:.1f} s") from error
        except OSError as error:
            raise failure(f"cannot connect: {error}") from error

    return connect_in_time


class Validation:
    """Validates the connections of one pool at each checkout."""

    def __init__(
        self, engine: AsyncEngine, watchdog: Any, ping: Callable[[Any], Awaitable[Any]]
    ) -> None:
        self.retired_at = self._logged_at = 0.0
        # More that an idle connection must pass: DisconnectionError replaces it.
        self.checks: list[Callable[[Connection], None]] = []
        self._watchdog = watchdog
        self._ping = ping
        _POOLS[engine.sync_engine] = self
        # Before the queries of SQLAlchemy at a connect, which have no time limit.
        event.listen(engine.sync_engine, "connect", self._before_queries, insert=True)
        event.listen(engine.sync_engine, "connect", self._on_connect)
        event.listen(engine.sync_engine, "checkout", self._on_checkout)
        event.listen(engine.sync_engine, "checkin", self._on_checkin)
        event.listen(engine.sync_engine, "handle_error", self._invalidate_if_lost)
        event.listen(engine.sync_engine, "handle_error", self._retire_if_read_only)

    def retire(self, reason: str) -> None:
        now = self.retired_at = monotonic()
        if reason and now - self._logged_at > RETIRED_LOG_SECONDS:
            self._logged_at = now
            facts = {"reason": reason, "pool": self._watchdog.pool}
            text = "connection pool retired: %(reason)s (pool %(pool)s)"
            logger.warning(text, facts, extra=facts)

    def _before_queries(self, connection: Connection, _: ConnectionPoolEntry) -> None:
        self._watchdog.arm(connection, remaining(self._watchdog.seconds))

    def _on_connect(self, connection: Connection, entry: ConnectionPoolEntry) -> None:
        self._watchdog.disarm(connection)
        now = entry.info["used_at"] = entry.info["opened_at"] = monotonic()
        lifetime = LIFETIME_SECONDS * random.uniform(1 - JITTER, 1)  # noqa: S311
        entry.info["expires_at"] = now + lifetime

    def _on_checkout(
        self, connection: Connection, entry: ConnectionPoolEntry, _: Any
    ) -> None:
        now = monotonic()
        if entry.info["opened_at"] <= self.retired_at:
            raise DisconnectionError("moved")
        if now > entry.info["expires_at"]:
            raise DisconnectionError("lifetime")
        if now - entry.info["used_at"] < IDLE_SECONDS:
            return
        seconds = remaining(PING_SECONDS)
        try:
            self._watchdog.within(connection, seconds, connection.run_async, self._ping)
        except Exception as error:
            # An error at once: the server has closed this connection. No answer: the
            # network is gone, and with it every connection from before.
            if monotonic() - now >= PING_SECONDS:
                self.retire("a connection gave no answer to the ping")
            raise DisconnectionError("validation") from error
        for check in self.checks:
            check(connection)

    def _on_checkin(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        failed = entry.info.pop("reset_failed", False)
        if connection and (failed or connection in self._watchdog.not_reset):
            # Closed without an await, in which a cancellation would lose the place in
            # the pool; replaced at the next checkout.
            self._watchdog.not_reset.discard(connection)
            self._watchdog.shut_down(connection.driver_connection)
            entry.invalidate(soft=True)
        entry.info["used_at"] = monotonic()

    def _invalidate_if_lost(self, context: ExceptionContext) -> DBAPIError | None:
        """Errors that are none of the driver: of COMMIT, and of the event loop."""
        error = context.original_exception
        if context.sqlalchemy_exception or not context.connection:
            return None
        if isinstance(error, LostBeforeCommit):
            context.is_disconnect = True
        elif isinstance(error, (RuntimeError, OSError)) and self._watchdog.is_closed(
            context.connection.connection
        ):
            context.is_disconnect = True
            return DBAPIError(context.statement, None, error, True, True)
        return None

    def _retire_if_read_only(self, context: ExceptionContext) -> None:
        """A server that rejects a write is not the primary any more: neither are the
        servers of the other connections of this pool.
        """
        # Not at COMMIT: there a lost connection means an unknown outcome, and nothing
        # was committed.
        if not context.statement or not is_read_only(context.original_exception):
            return
        if connection := context.connection:
            if connection.get_execution_options().get("postgresql_readonly"):
                return  # a Snapshot or an Export: its transaction rejects the write
            connection.info["moved"] = True
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
        self.retire("the server rejects writes, so it is not the primary")


def check_idle(engine: AsyncEngine, check: Callable[[Connection], None]) -> None:
    """Call the check at the checkout of an idle connection, after the ping."""
    _POOLS[engine.sync_engine].checks.append(check)


def retire(engine: AsyncEngine, reason: str = "") -> None:
    """Replace each connection of the pool that is open now, at its next checkout.

    What is in use goes on to its end: nothing is opened beside it, so the server has no
    more connections than the budget counts. Without a reason there is no log line.
    """
    _POOLS[engine.sync_engine].retire(reason)


def retired_at(engine: AsyncEngine) -> float:
    return _POOLS[engine.sync_engine].retired_at


class IsolationLevels(DefaultDialect):
    """Mixin of a dialect: a connection goes back to its pool though its isolation level
    cannot be set, or reset.
    """

    watchdog: Any

    def reset_isolation_level(self, connection: Any) -> None:
        """At a checkin, which an error would end: its place in the pool would be lost.

        The connection is closed instead. A cancellation comes with the next await.
        """
        reset = super().reset_isolation_level
        try:
            self.watchdog.within(connection, RESET_SECONDS, reset, connection)
        except BaseException as error:
            self.watchdog.not_reset.add(connection)
            task = asyncio.current_task()
            if task and isinstance(error, asyncio.CancelledError):
                task.uncancel()
                task.cancel()

    def set_engine_execution_options(self, engine: Any, opts: Any) -> None:
        """As SQLAlchemy's, but a connection whose isolation level is not set, as by a
        cancellation, is returned: nothing holds the object that would return it.
        """

        def set_options(begun: Any) -> None:
            try:
                self.set_connection_execution_options(begun, opts)
            except BaseException as error:
                begun.connection.invalidate(error)
                begun.connection.close()
                raise

        event.listen(engine, "engine_connect", set_options)
