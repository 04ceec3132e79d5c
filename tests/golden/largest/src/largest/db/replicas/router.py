"""Router: a read goes to a healthy replica that has the writes of its client."""

import asyncio
import logging
from collections import Counter
from contextvars import Context
from time import monotonic
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..engine.dialect import PRIMARY_QUERY
from ..engine.timing import Ticker
from ..engine.validation import retire
from ..errors import safe_message
from ..primary import PrimaryOnly
from ..routing import Target
from .metrics import export
from .position import commit_position
from .replica import PROBE_TIMEOUT_SECONDS, Replica, first_probe, is_awaited
from .watermark import (
    PRIMARY_ONLY,
    Position,
    add_written,
    has_reached,
    required_position,
)

PROBE_INTERVAL_SECONDS = 0.25
# Between two samples of the primary's position, to know the lag of the replicas.
PRIMARY_SAMPLE_INTERVAL_SECONDS = 1
# After the last read a replica that lags is probed for so long: else the gauge would
# keep the lag of that moment.
WATCH_SECONDS = 600

logger = logging.getLogger(__name__)


class ReplicaRouter:
    """Round robin over the replicas, which are probed while reads use them."""

    def __init__(self, primary: AsyncEngine, replicas: list[Replica]) -> None:
        self.primary = PrimaryOnly(primary)
        self.replicas = replicas
        self.reads: Counter[str] = Counter()  # sessions, by pool
        self.fallbacks: Counter[str] = Counter()  # by reason
        self.waits: list[float] = []  # seconds
        self._turn = 0
        self._ticker = Ticker(PROBE_INTERVAL_SECONDS, self._tick)
        self._sampled_at = self._used_at = 0.0
        self._sample: asyncio.Task[None] | None = None

    async def choose(self, current: Target | None) -> Target:
        """One server for all statements of a session, unless it was banned or misses
        what the client has written since.
        """
        goal = required_position()
        if isinstance(current, Replica):
            if current.unhealthy_reason:
                return self._move(current, "banned")
            if has_reached(current.position, goal):
                return current
            self.reads[current.name] -= 1  # a session counts as one read
        elif current:
            return current
        self._used_at = monotonic()
        if self._ticker.loop is not asyncio.get_running_loop():
            self._ticker.start()
        return self._next(goal) or await self._wait_for(goal)

    def candidates(self) -> list[AsyncEngine]:
        """The ready replicas that have the writes of the client; without one, each
        that was healthy when it was last probed, and the primary.
        """
        goal = required_position()
        ready = [each for each in self._ready() if has_reached(each.position, goal)]
        if ready:
            return [each.engine for each in ready]
        healthy = [each.engine for each in self.replicas if not each.unhealthy_reason]
        return [*healthy, self.primary.engine]

    def retry(
        self, target: Target, error: SQLAlchemyError, seconds: float
    ) -> Target | None:
        if not isinstance(target, Replica):
            return self.primary.retry(target, error, seconds)
        return self._move(target, "failed") if target.report_error(error) else None

    def committed(self, connection: Connection) -> None:
        """Note the position, so that the next read of this client sees the commit."""
        try:
            position = commit_position(connection, self.primary.engine.sync_engine)
            self._primary_at(position)
        except SQLAlchemyError as error:  # the commit stays
            text = "no replication position after COMMIT, its client reads the primary"
            cause = safe_message(error)
            logger.warning("%s: %s", text, cause, extra={"cause": cause})
            position = PRIMARY_ONLY
        add_written(position)

    def may_have_committed(self) -> None:
        """The next read of this client looks for what it has written: on the primary,
        as no position is known.
        """
        add_written(PRIMARY_ONLY)

    async def close(self) -> None:
        self._ticker.stop()
        await asyncio.gather(*(replica.close() for replica in self.replicas))
        if self._sample:
            await asyncio.wait({self._sample}, timeout=PROBE_TIMEOUT_SECONDS)

    def _next(self, goal: Position) -> Replica | None:
        # Part of every read: 10 us are 3 % of it.
        now = monotonic()
        for _ in self.replicas:
            self._turn = (self._turn + 1) % len(self.replicas)
            replica = self.replicas[self._turn]
            if now < replica.ready_until and has_reached(replica.position, goal):
                self.reads[replica.name] += 1
                return replica
        return None

    def _ready(self) -> list[Replica]:
        now = monotonic()
        return [replica for replica in self.replicas if now < replica.ready_until]

    async def _wait_for(self, goal: Position) -> Target:
        """Wait for a probe if none is recent, then for the least lagging replica."""
        if not self._ready() and is_awaited(goal):
            await first_probe(self.replicas)
            if replica := self._next(goal):
                return replica
        if ready := self._ready():
            began = monotonic()
            replica = min(ready, key=lambda each: each.lag_seconds)
            has_replayed = await replica.wait_for(goal)
            self.waits.append(monotonic() - began)
            if has_replayed:
                self.reads[replica.name] += 1
                return replica
        self.reads["primary"] += 1
        self.fallbacks["behind" if ready or not is_awaited(goal) else "none ready"] += 1
        return self.primary

    def _move(self, replica: Replica, reason: str) -> Target:
        # A session counts as one read.
        self.reads[replica.name] -= 1
        self.reads["primary"] += 1
        self.fallbacks[reason] += 1
        return self.primary

    def _primary_at(self, position: Position) -> None:
        self._sampled_at = monotonic()
        for replica in self.replicas:
            replica.primary_at(position)

    def _tick(self) -> bool:
        for replica in self.replicas:
            replica.probe()
        since = (now := monotonic()) - self._sampled_at
        if not self._sample and since > PRIMARY_SAMPLE_INTERVAL_SECONDS:
            # Even if it fails: a name may lead to a standby for a minute.
            self._sampled_at = monotonic()
            sample = self._sample_primary()
            self._sample = asyncio.create_task(sample, context=Context())
        export(self.reads, self.fallbacks, self.waits, self.replicas)
        pools: list[Any] = [each.engine.sync_engine.pool for each in self.replicas]
        lags = any(each.lag_seconds > PROBE_INTERVAL_SECONDS for each in self.replicas)
        seconds = WATCH_SECONDS if lags else PROBE_INTERVAL_SECONDS
        return now - self._used_at < seconds or any(pool.checkedout() for pool in pools)

    async def _sample_primary(self) -> None:
        engine = self.primary.engine
        try:
            async with engine.connect() as connection:
                query = await connection.exec_driver_sql(PRIMARY_QUERY)
                if is_primary := query.scalar_one():
                    position = await connection.run_sync(
                        commit_position, engine.sync_engine
                    )
                    self._primary_at(position)
            if not is_primary:
                retire(engine, "the address of the primary leads to a standby")
        except SQLAlchemyError:
            pass  # a primary that cannot be reached does not move either
        finally:
            self._sample = None
