"""Connection pool: SQLAlchemy's own behind a gate, with a record of each checkout."""

import asyncio
import random
from collections.abc import Callable
from contextvars import Context, copy_context
from time import monotonic
from traceback import walk_stack
from typing import Any, NamedTuple, Self, cast
from weakref import ref

from greenlet import getcurrent  # type: ignore[import-untyped]
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.util import await_only

from .gate import Aborted, Gate
from .timing import Ticker, checkout_deadline

PACKAGE = __name__.partition(".")[0]
# Of Retry-After, whatever is predicted.
MAX_RETRY_SECONDS = 30


class PoolBusyError(PoolTimeoutError):
    """No connection in time; another try is worth it after so many seconds."""

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


def retry_after(wait: float) -> int:
    """Seconds, from 1 to 1 + twice the wait: clients shall not all come at once."""
    return int(min(random.uniform(1, 1 + 2 * wait), MAX_RETRY_SECONDS))  # noqa: S311


class Checkout(NamedTuple):
    """A connection in use: since when, for which request, by which lines."""

    connection: ref[PoolProxiedConnection]
    since: float
    context: Context
    caller: str


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's pool behind a gate: its own queue never waits."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.gate = Gate(self.size() + self._max_overflow)
        self.checkouts: list[Checkout] = []
        self.waits: list[float] = []  # seconds
        self.rejected = 0
        self.leak_trace = False
        self.ticker: Ticker | None = None  # none: the pool has no metrics

    def connect(self) -> PoolProxiedConnection:
        began = monotonic()
        token = checkout_deadline.set(
            min(checkout_deadline.get(), began + self.timeout())
        )
        try:
            if not self.gate.acquire_nowait():
                self._queue()
            try:
                connection = super().connect()
            except BaseException:
                self.gate.release()
                raise
        finally:
            checkout_deadline.reset(token)
        connection.record_info["gate"] = self.gate  # type: ignore[index]
        if self.ticker:
            self._record(connection, began, self.ticker)
        return connection

    def _do_return_conn(self, record: Any) -> None:
        # Not at "checkin", which comes before an overflow connection is closed.
        try:
            super()._do_return_conn(record)
        finally:
            if gate := record.record_info.pop("gate", None):
                gate.release()

    def _record(
        self, connection: PoolProxiedConnection, began: float, ticker: Ticker
    ) -> None:
        now = monotonic()
        self.waits.append(now - began)
        caller = _caller() if self.leak_trace else "DATABASE_LEAK_TRACE=true says where"
        self.checkouts.append(Checkout(ref(connection), now, copy_context(), caller))
        if ticker.loop is not asyncio.get_running_loop():
            ticker.start()

    def excess_wait(self) -> float:
        """The predicted wait if the gate would reject a checkout now, else 0."""
        seconds = self.timeout()
        wait = 0.0 if self.gate.free else self.gate.predicted_wait(seconds)
        return wait if wait > seconds else 0.0

    def count_rejected(self) -> None:
        self.rejected += 1
        if self.ticker:
            self.ticker.start()

    def abort(self, shut_down: Callable[[Any], None]) -> None:
        """Let every caller that waits for the server try elsewhere."""
        self.gate.reject_all()
        for checkout in self.checkouts:
            if (connection := checkout.connection()) and connection.is_valid:
                shut_down(connection.driver_connection)

    def recreate(self) -> Self:
        pool = cast("Self", super().recreate())
        pool.leak_trace, pool.ticker = self.leak_trace, self.ticker
        return pool

    def _queue(self) -> None:
        try:
            await_only(self.gate.acquire(self.timeout()))
        except TimeoutError as error:
            if not isinstance(error, Aborted):
                self.count_rejected()
            raise PoolBusyError(
                f"no connection within {self.timeout():g} s: {self.gate.permits} in"
                f" use, {self.gate.waiting} waiting",
                retry_after(self.gate.predicted_wait(self.timeout())),
            ) from None


def _caller() -> str:
    """The lines of the service that have asked for the connection, the last one first.

    This runs in a greenlet: the coroutine that awaits it is on its parent's stack.
    """
    lines = [
        f"{module}:{line}"
        for frame, line in walk_stack(getcurrent().parent.gr_frame)
        if (module := frame.f_globals.get("__name__", "")).startswith(PACKAGE)
    ]
    return " in ".join(lines[:3])
