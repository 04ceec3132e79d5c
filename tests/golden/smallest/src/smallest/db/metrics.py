"""What the pool is doing: figures for Prometheus, and a warning about each leak."""

import asyncio
import logging
from contextvars import Context, copy_context
from time import monotonic
from traceback import walk_stack
from typing import Any
from weakref import ref

from greenlet import getcurrent  # type: ignore[import-untyped]
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection as Connection
from sqlalchemy.pool import QueuePool

from .pool import FairPool

LEAK_SECONDS = 30
LOOK_SECONDS = 0.1
PACKAGE = __name__.partition(".")[0]
# Who has it, since when, the request (for the log), the place.
Loan = tuple[ref[Connection], float, Context, str]

logger = logging.getLogger(__name__)


def _gauge(name: str, meaning: str) -> Gauge:
    # The sum over the workers that live: one that was killed takes its part along.
    return Gauge(name, meaning, ["pool"], multiprocess_mode="livesum")


SIZE = _gauge("database_pool_size", "Connections that may be open at once.")
IN_USE = _gauge("database_pool_in_use", "Connections that somebody has got.")
WAITING = _gauge("database_pool_waiting", "Callers in line for a connection.")
LEAKED = _gauge("database_pool_leaked", f"Connections out for over {LEAK_SECONDS} s.")
REFUSED = Counter("database_pool_refused_total", "Callers sent away.", ["pool"])
CREATED = Counter("database_pool_connections_created_total", "Opened.", ["pool"])
INVALIDATED = Counter(
    "database_pool_connections_invalidated_total", "Given up.", ["pool", "reason"]
)
# At once; after a ping; after a connect; the rest has been in line.
BUCKETS = (0.0005, 0.002, 0.01, 0.05, 0.25, 1, 3)
WAIT = Histogram(
    "database_pool_wait_seconds", "From asking to having.", ["pool"], buckets=BUCKETS
)


class MeasuredPool(FairPool):
    figures: "Figures"

    def connect(self) -> Connection:
        asked_at = monotonic()
        self.figures.look_soon()
        try:
            connection = super().connect()
        except PoolTimeoutError:
            self.figures.refused += 1
            raise
        self.figures.lend(connection, asked_at)
        return connection

    def recreate(self) -> QueuePool:
        self.figures.follow(pool := super().recreate())
        return pool


class Figures:
    """Looks at the pool ten times a second, for as long as it is used.

    Not told by events: among errors and cancellations not each has a counterpart. And
    a figure that is shared with other workers takes 5 us to write.
    """

    def __init__(self, name: str, leak_trace: bool) -> None:
        self._size, self._in_use = SIZE.labels(name), IN_USE.labels(name)
        self._waiting, self._leaked = WAITING.labels(name), LEAKED.labels(name)
        self._wait, self._refused = WAIT.labels(name), REFUSED.labels(name)
        self._leak_trace = leak_trace
        self._looked_at = self._told_at = 0.0
        self._looks_soon = False

    def follow(self, pool: Any) -> None:
        """To the successor of a pool that was disposed of, or to a forked process."""
        self._pool: MeasuredPool = pool
        pool.figures = self
        self.loans: list[Loan] = []
        self._waits: list[float] = []
        self.refused = 0
        self._size.set(pool.size() + pool._max_overflow)
        self._look(pool)

    def look_soon(self) -> None:
        if not self._looks_soon:
            self._looks_soon = True
            loop = asyncio.get_running_loop()
            loop.call_later(LOOK_SECONDS, self._look, self._pool)

    def lend(self, connection: Connection, asked_at: float) -> None:
        now = monotonic()
        place = _place() if self._leak_trace else "DATABASE_LEAK_TRACE=true says where"
        self._waits.append(now - asked_at)
        self.loans.append((ref(connection), now, copy_context(), place))

    def _look(self, pool: MeasuredPool) -> None:
        if pool is not self._pool:
            return
        now, before = monotonic(), self._looked_at
        self._in_use.set(pool.checkedout())
        self._waiting.set(pool.waiting())
        for waited in self._waits:
            self._wait.observe(waited)
        self._waits.clear()
        self.loans = [loan for loan in self.loans if _is_out(loan[0]())]
        leaks = [loan for loan in self.loans if now - loan[1] > LEAK_SECONDS]
        self._leaked.set(len(leaks))
        for _, since, context, place in leaks:
            if before - since <= LEAK_SECONDS:
                age = round(now - since)
                context.run(logger.warning, "connection out for %d s: %s", age, place)
        if self.refused and now - self._told_at > 1:
            self._refused.inc(self.refused)
            logger.warning("%d callers refused: %s", self.refused, pool.status())
            self.refused, self._told_at = 0, now
        self._looked_at, self._looks_soon = now, False
        if pool.checkedout() or self.loans or self.refused:
            self.look_soon()


def measure(engine: AsyncEngine, name: str, *, leak_trace: bool) -> None:
    """Keep the figures of the engine's pool, whatever becomes of the pool."""
    Figures(name, leak_trace).follow(engine.sync_engine.pool)
    created = CREATED.labels(name)
    event.listen(engine.sync_engine, "connect", lambda *_: created.inc())

    def count(_: object, __: object, error: BaseException | None) -> None:
        reason = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
        if isinstance(error, DisconnectionError):  # raised by db/watch.py
            reason = str(error)
        INVALIDATED.labels(name, reason).inc()

    event.listen(engine.sync_engine, "invalidate", count)


def _is_out(connection: Connection | None) -> bool:
    return connection is not None and connection.is_valid


def _place() -> str:
    """The lines of the service that asked for the connection, the last one first."""
    # This runs in a greenlet; who awaits it is on the stack of its parent.
    lines = [
        f"{module}:{line}"
        for frame, line in walk_stack(getcurrent().parent.gr_frame)
        if (module := frame.f_globals.get("__name__", "")).startswith(PACKAGE)
    ]
    return " in ".join(lines[:3])
