"""A replica: its health, found out by probes, and the position that it has replayed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from contextvars import Context
from time import monotonic
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..engine.dialect import rejects_write, with_snapshots
from ..engine.timing import checkout_deadline, remaining
from ..engine.validation import retire
from ..errors import FaultKind, classify, safe_message
from .lag import LagEstimator
from .position import HEALTH_QUERY, REPORTS_LAG, WAIT_SECONDS, replay_position
from .watermark import PRIMARY_ONLY, Position, has_reached

# A probe slower than this takes the replica out of rotation...
SUSPECT_AFTER_SECONDS = 0.25
# ...and slower than this bans it: reads that wait for it are repeated elsewhere.
PROBE_TIMEOUT_SECONDS = 1
# A probe counts for so long; while replicas are in use the next one comes earlier.
PROBE_TTL_SECONDS = 1
BAN_SECONDS = 10
BAN_REASONS = ("lag", "primary", "refused", "unreachable")
# A read that waits for a position asks again after 1 ms, and up to this.
MAX_POLL_PAUSE_SECONDS = 0.005

logger = logging.getLogger(__name__)


class Replica:
    """Probed on a connection of its own, which no read can keep busy.

    Reads use it while `monotonic() < ready_until`, on `engine`.
    """

    def __init__(
        self, name: str, engine: AsyncEngine, probes: AsyncEngine, max_lag: float
    ) -> None:
        self.name = name
        self.engine = engine
        self.snapshots = with_snapshots(engine)
        self.ready_until = 0.0
        self.position: Position = {}  # replayed
        self.lag_seconds = 0.0
        self.unhealthy_reason = "not probed yet"
        # By reason, from 0 on: Prometheus sees no growth to a first sample.
        self.bans: Counter[str] = Counter(dict.fromkeys(BAN_REASONS, 0))
        self._probes = probes
        self._max_lag_seconds = max_lag
        self._lag = LagEstimator()
        self._probed_at = self._banned_until = 0.0
        self._probe: asyncio.Task[None] | None = None

    def probe(self) -> "asyncio.Task[None] | None":
        """Begin a health probe unless one is running or the replica is banned.

        Returns the probe to wait for; none of a replica that was not healthy, or whose
        probe is slow.
        """
        now = monotonic()
        if self._probe is None and now >= self._banned_until:
            self._probed_at = now
            self.ready_until = min(self.ready_until, now + SUSPECT_AFTER_SECONDS)
            # Not a part of the request that happens to begin it.
            self._probe = asyncio.create_task(self._run_probe(), context=Context())
        is_slow = now - self._probed_at > SUSPECT_AFTER_SECONDS
        return None if self.unhealthy_reason or is_slow else self._probe

    async def wait_for(self, position: Position) -> bool:
        """Whether it has replayed the position, within WAIT_SECONDS."""
        until = monotonic() + WAIT_SECONDS
        pause = 0.001
        while not has_reached(self.position, position):
            hopeless = self.unhealthy_reason or self.lag_seconds > WAIT_SECONDS
            if hopeless or not is_awaited(position) or monotonic() + pause > until:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_POLL_PAUSE_SECONDS)
            if probe := self.probe():
                await asyncio.wait({probe}, timeout=until - monotonic())
        return True

    def primary_at(self, position: Position) -> None:
        if not has_reached(self.position, position):
            self._lag.primary_at(position)

    def report_error(self, error: SQLAlchemyError) -> bool:
        """Whether a statement that failed here may succeed elsewhere."""
        if isinstance(error, PoolTimeoutError):
            return monotonic() >= self.ready_until
        if isinstance(error, DBAPIError) and error.statement is None:  # no connection
            self._ban("refused", safe_message(error))
            return True
        fault = classify(error)
        if fault not in (FaultKind.BUSY, FaultKind.UNAVAILABLE) or rejects_write(error):
            return False
        self.probe()  # the connection is lost, or was in the way of the replay
        return True

    async def close(self) -> None:
        # Not cancelled: a driver would leave the socket open that it is connecting.
        if self._probe:
            await asyncio.wait({self._probe}, timeout=PROBE_TIMEOUT_SECONDS)

    async def _run_probe(self) -> None:
        try:
            try:
                health = await self._query()
            except DBAPIError as error:
                # A closed connection fails at once: there is time for another.
                late = monotonic() - self._probed_at > PROBE_TIMEOUT_SECONDS / 2
                if late or not error.connection_invalidated:
                    raise
                health = await self._query()
        except Exception as error:  # any error means: unhealthy
            self._ban("unreachable", safe_message(error))
            engine: Any = self.engine.sync_engine
            engine.pool.abort(engine.dialect.watchdog.shut_down)
        else:
            self._apply(health)
        finally:
            self._probe = None

    async def _query(self) -> Any:
        checkout_deadline.set(self._probed_at + PROBE_TIMEOUT_SECONDS)
        async with self._probes.connect() as connection:
            seconds = remaining(PROBE_TIMEOUT_SECONDS)
            bounded = await connection.execution_options(time_limit=seconds)
            return (await bounded.exec_driver_sql(HEALTH_QUERY)).one()

    def _apply(self, health: Any) -> None:
        now = monotonic()
        self.position = replay_position(health)
        estimated = self._lag.seconds(self.position)
        reported: float | None = health.lag_seconds
        self.lag_seconds = estimated if reported is None else float(reported)
        if not health.is_replica:
            self._ban("primary", "it is no replica")
            # An endpoint may lead to another server now.
            retire(self.engine)
            retire(self._probes)
        elif REPORTS_LAG and reported is None:
            self._ban("lag", "it does not report its lag")
        elif self.lag_seconds > self._max_lag_seconds:
            self._ban("lag", f"it lags {self.lag_seconds:.1f} s")
        elif now >= self._banned_until:
            if self._banned_until:
                text = "replica %s is back in rotation"
                logger.info(text, self.name, extra={"replica": self.name})
            if self.unhealthy_reason == "primary":
                # Its name leads to another server now; what a read has opened
                # meanwhile may not.
                retire(self.engine)
            self.unhealthy_reason, self._banned_until = "", 0.0
            self.ready_until = now + PROBE_TTL_SECONDS

    def _ban(self, reason: str, detail: str) -> None:
        now = monotonic()
        if reason != self.unhealthy_reason:
            facts = {"replica": self.name, "seconds": BAN_SECONDS}
            facts |= {"reason": reason, "detail": detail}
            text = "replica %(replica)s banned for %(seconds)d s"
            text += " (%(reason)s): %(detail)s"
            logger.warning(text, facts, extra=facts)
        if now >= self._banned_until:  # else many reads find out at once
            self.bans[reason] += 1
        self.unhealthy_reason = reason
        self.ready_until = 0.0
        self._banned_until = now + BAN_SECONDS


def is_awaited(position: Position) -> bool:
    """Whether a read waits for a replica with this position, or uses the primary."""
    never = has_reached(position, PRIMARY_ONLY)
    return not position or bool(WAIT_SECONDS and not never)


async def first_probe(replicas: Sequence[Replica]) -> None:
    """Probe all until the first is ready, for a quarter of a second at most."""
    probes = {probe for replica in replicas if (probe := replica.probe())}
    until = monotonic() + SUSPECT_AFTER_SECONDS
    while probes and not any(monotonic() < each.ready_until for each in replicas):
        done, probes = await asyncio.wait(
            probes,
            timeout=max(until - monotonic(), 0),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not done:
            return
