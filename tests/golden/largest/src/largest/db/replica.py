"""One replica: whether it can be read from, and how far it is."""

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from contextvars import Context
from time import monotonic
from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .deadline import acquire_until, seconds_left
from .faults import Fault, classify, describe
from .log_position import TELLS_LAG, WAIT_SECONDS, replayed
from .look import LOOK
from .position import NOWHERE, Position, includes
from .primary_session import closing
from .replica_engines import create_engines, send_on
from .replica_lag import Lag
from .settings import DatabaseSettings
from .watch import retire

# A look has its answer after so long, or new reads go elsewhere until it has one...
DOUBT_SECONDS = 0.25
# ...or the replica is given up: what waits for it is cut, and repeated elsewhere.
SILENT_SECONDS = 1
# What was seen counts for so long. While the replica is in use the next look comes
# before that.
FRESH_SECONDS = 1
BAN_SECONDS = 10
# All reads that wait for it share its looks, with pauses of 1 ms up to this.
MOST_PAUSE_SECONDS = 0.005

logger = logging.getLogger(__name__)


class Replica:
    """Looked at on a connection of its own, which no read can keep busy."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.name = f"{settings.database_host}:{settings.database_port}"
        self.engine, self._line = create_engines(settings, self.name)
        self.lag_seconds = 0.0
        self.bans: Counter[str] = Counter()
        self._max_lag_seconds = settings.database_replica_max_lag_seconds
        self._position: Position = {}
        self._lag = Lag()
        self.trouble = "not looked at yet"
        self._fresh_until = self._asked_at = 0.0
        self._banned_until = 0.0
        self._look: asyncio.Task[None] | None = None

    async def enter(self, stack: AsyncExitStack) -> None:
        """Open it for as long as the stack lasts."""
        await stack.enter_async_context(closing(self.engine))
        await stack.enter_async_context(closing(self._line))
        stack.push_async_callback(self._end_look)

    def is_ready(self, now: float) -> bool:
        """Whether it was well a moment ago, and is not slow to say so again."""
        return now < self._fresh_until and not self.trouble and not self._is_slow(now)

    def _is_slow(self, now: float) -> bool:
        return self._look is not None and now - self._asked_at > DOUBT_SECONDS

    def is_banned(self, now: float) -> bool:
        return now < self._banned_until

    def is_in_use(self) -> bool:
        pool: Any = self.engine.sync_engine.pool
        return bool(pool.checkedout())

    def look(self) -> "asyncio.Task[None] | None":
        """Look at it, unless somebody does already; None while it is banned.

        After a ban, and at first, nobody waits for it: not ready until it is seen.
        """
        now = monotonic()
        if self._look is None and not self.is_banned(now):
            self._asked_at = now
            # It is no part of the request that happens to begin it.
            self._look = asyncio.create_task(self._see(), context=Context())
        return None if self.trouble or self._is_slow(now) else self._look

    def has(self, position: Position) -> bool:
        return includes(self._position, position)

    async def reaches(self, position: Position) -> bool:
        """Wait until it is there, unless it is too far behind for that."""
        until = monotonic() + WAIT_SECONDS
        pause = 0.001
        while not self.has(position):
            hopeless = self.trouble or self.lag_seconds > WAIT_SECONDS
            if hopeless or includes(position, NOWHERE) or monotonic() + pause > until:
                return False
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE_SECONDS)
            if look := self.look():
                await asyncio.wait({look}, timeout=until - monotonic())
        return True

    def expect(self, position: Position) -> None:
        """The primary is there."""
        if not self.has(position):
            self._lag.expect(position)

    def is_at_fault(self, error: SQLAlchemyError) -> bool:
        """Whether what has failed here may succeed elsewhere."""
        if isinstance(error, PoolTimeoutError):
            return not self.is_ready(monotonic())
        if isinstance(error, DBAPIError) and error.statement is None:  # no connection
            self._ban("refused", describe(error))
            return True
        if classify(error) not in (Fault.BUSY, Fault.UNAVAILABLE):
            return False
        self.look()  # one is lost, or was in the way of the replay
        return True

    async def _see(self) -> None:
        try:
            try:
                found = await self._ask()
            except DBAPIError as error:
                # One that was closed says so at once.
                if not error.connection_invalidated or not self._is_in_time():
                    raise
                found = await self._ask()
        except Exception as error:  # whatever it is, it is the answer
            self._ban("unreachable", describe(error))
            send_on(self.engine)
        else:
            self._learn(found)
        finally:
            self._look = None

    async def _ask(self) -> Any:
        acquire_until.set(self._asked_at + SILENT_SECONDS)
        async with self._line.connect() as connection:
            seconds = seconds_left(SILENT_SECONDS)
            bounded = await connection.execution_options(time_limit=seconds)
            return (await bounded.exec_driver_sql(LOOK)).one()

    def _is_in_time(self) -> bool:
        return monotonic() - self._asked_at < SILENT_SECONDS / 2

    def _ban(self, trouble: str, detail: str) -> None:
        """Read from others for a while."""
        now = monotonic()
        if trouble != self.trouble:
            logger.warning("replica %s is not used: %s", self.name, detail)
        if not self.is_banned(now):  # else many find out at once
            self.bans[trouble] += 1
        self.trouble = trouble
        self._banned_until = now + BAN_SECONDS

    def _learn(self, found: Any) -> None:
        now = monotonic()
        self._position = replayed(found)
        behind = self._lag.seconds(self._position)
        told: float | None = found.lag_seconds
        self.lag_seconds = behind if told is None else float(told)
        if not found.is_replica:
            self._ban("primary", "it is no replica")
            # An endpoint may lead to another server now.
            retire(self.engine)
            retire(self._line)
        elif TELLS_LAG and told is None:
            self._ban("lag", "it does not say how far it is behind")
        elif self.lag_seconds > self._max_lag_seconds:
            self._ban("lag", f"it is {self.lag_seconds:.1f} s behind")
        elif not self.is_banned(now):  # since this look has begun
            if self._banned_until:
                logger.info("replica %s is used again", self.name)
            if self.trouble == "primary":
                # Its address leads elsewhere now; what was opened meanwhile does not.
                retire(self.engine)
            self.trouble, self._banned_until = "", 0.0
            self._fresh_until = now + FRESH_SECONDS

    async def _end_look(self) -> None:
        # Not cancelled: a driver would leave the socket that it is about to open.
        if self._look:
            await asyncio.wait({self._look}, timeout=SILENT_SECONDS)
