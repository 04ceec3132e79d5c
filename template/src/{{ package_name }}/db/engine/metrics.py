"""Metrics of the connection pool, and a warning about each possible leak."""

import asyncio
import logging
from time import monotonic
from typing import Any
from weakref import ref

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine

from .timing import Ticker

LEAK_SECONDS = 30
REFRESH_SECONDS = 0.1
REJECTED_LOG_SECONDS = 1
POOL = ["pool"]

logger = logging.getLogger(__name__)


def _gauge(name: str, meaning: str) -> Gauge:
    # The sum over the processes that live: the part of a killed one goes with it.
    return Gauge(name, meaning, POOL, multiprocess_mode="livesum")


SIZE = _gauge("database_pool_size", "Connections that may be open at once.")
IN_USE = _gauge("database_pool_in_use", "Connections that are checked out.")
WAITING = _gauge("database_pool_waiting", "Checkouts in the queue.")
LEAKED = _gauge("database_pool_leaked", f"Checked out for over {LEAK_SECONDS} s.")
REFUSED = Counter("database_pool_refused_total", "Checkouts rejected.", POOL)
CREATED = Counter(
    "database_pool_connections_created_total", "Connections opened.", POOL
)
INVALIDATED = Counter(
    "database_pool_connections_invalidated_total",
    "Connections replaced, by reason.",
    ["pool", "reason"],
)
WAIT = Histogram(
    "database_pool_wait_seconds",
    "Duration of a checkout.",
    POOL,
    # No wait; a ping; a connect; the rest has been in the queue.
    buckets=(0.0005, 0.002, 0.01, 0.05, 0.25, 1, 3),
)


class PoolMetrics:
    """Reads what a pool has recorded, ten times a second while the pool is in use.

    Polled, since a cancelled checkout has no check-in event; and a value that
    processes share takes 5 us to write.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        # Not the pool: dispose() gives the engine another one.
        self._engine = ref(engine)
        self._name = name
        self._refreshed_at = self._logged_at = 0.0

    def refresh(self) -> bool:
        """Whether the pool is in use."""
        engine = self._engine()
        if not engine:
            return False
        now, name = monotonic(), self._name
        pool: Any = engine.pool
        SIZE.labels(name).set(pool.gate.permits)
        IN_USE.labels(name).set(pool.checkedout())
        WAITING.labels(name).set(pool.gate.waiting)
        for seconds in pool.waits:
            WAIT.labels(name).observe(seconds)
        pool.waits.clear()
        pool.checkouts = [each for each in pool.checkouts if _is_in_use(each)]
        self._report_leaks(pool.checkouts, now)
        if pool.rejected and now - self._logged_at > REJECTED_LOG_SECONDS:
            REFUSED.labels(name).inc(pool.rejected)
            facts = {
                "pool": name,
                "rejected": pool.rejected,
                "in_use": pool.checkedout(),
            }
            facts |= {"waiting": pool.gate.waiting, "state": pool.status()}
            text = "connection pool rejected %(rejected)d checkouts: %(state)s"
            logger.warning(text, facts, extra=facts)
            pool.rejected, self._logged_at = 0, now
        self._refreshed_at = now
        in_use = pool.checkedout() or pool.checkouts or pool.gate.waiting
        return bool(in_use or pool.rejected)

    def _report_leaks(self, checkouts: list[Any], now: float) -> None:
        leaks = [each for each in checkouts if now - each.since > LEAK_SECONDS]
        LEAKED.labels(self._name).set(len(leaks))
        for leak in leaks:
            if self._refreshed_at - leak.since <= LEAK_SECONDS:
                text = "connection checked out for %(seconds)d s, possible leak: %(at)s"
                facts = {"pool": self._name, "seconds": round(now - leak.since)}
                facts["at"] = leak.caller
                leak.context.run(logger.warning, text, facts, extra=facts)


def instrument(engine: AsyncEngine, name: str, *, leak_trace: bool) -> None:
    """Keep the metrics of the engine's pool, under this name."""
    metrics = PoolMetrics(engine.sync_engine, name)
    pool: Any = engine.sync_engine.pool
    pool.leak_trace = leak_trace
    pool.ticker = Ticker(REFRESH_SECONDS, metrics.refresh)
    metrics.refresh()
    created = CREATED.labels(name)
    # From 0 on: Prometheus sees no growth to a first sample.
    REFUSED.labels(name)
    for reason in "error", "moved", "validation":
        INVALIDATED.labels(name, reason)
    event.listen(engine.sync_engine, "connect", lambda *_: created.inc())

    def count(_: object, entry: Any, error: BaseException | None) -> None:
        reason = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
        if isinstance(error, DisconnectionError):  # of validation.py
            reason = str(error)
        elif entry.info.get("moved"):
            reason = "moved"
        INVALIDATED.labels(name, reason).inc()

    event.listen(engine.sync_engine, "invalidate", count)
    event.listen(engine.sync_engine, "soft_invalidate", count)


def _is_in_use(checkout: Any) -> bool:
    connection = checkout.connection()
    return connection is not None and connection.is_valid
