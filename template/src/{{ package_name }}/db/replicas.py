"""Where a read goes: to a replica that is well and has what its client has seen."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from contextvars import Context
from time import monotonic

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from .log_position import read_written
from .position import Position
from .replica import DOUBT_SECONDS, SILENT_SECONDS, Replica
from .replica_figures import show
from .role import IS_PRIMARY
from .settings import DatabaseSettings
from .watch import retire

LOOK_SECONDS = 0.25
# How often the primary is asked where it is, to know how far the others are behind.
SAMPLE_SECONDS = 1


class Replicas:
    """Looks at them four times a second, for as long as somebody reads."""

    def __init__(self, primary: AsyncEngine, settings: DatabaseSettings) -> None:
        self.reads: Counter[str] = Counter()  # by pool
        self.fallbacks: Counter[str] = Counter()  # by reason
        self.waits: list[float] = []
        self._primary = primary
        self._all = [Replica(each) for each in settings.replicas()]
        self._turn = 0
        self._is_used = False
        self._looks_in: asyncio.AbstractEventLoop | None = None
        self._sampled_at = 0.0
        self._sample: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._all)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._all)

    async def enter(self, stack: AsyncExitStack) -> None:
        for replica in self._all:
            await replica.enter(stack)
            replica.look()
        stack.push_async_callback(self._end)

    async def choose(self, seen: Position) -> Replica | None:
        """The next one in turn that is ready and as far as that; None: the primary."""
        self._look_soon()
        chosen = self._next(seen)
        if not chosen and not self._ready():
            await self._ask()
            chosen = self._next(seen)
        ready = [] if chosen else self._ready()
        if ready:
            began = monotonic()
            foremost = min(ready, key=lambda replica: replica.lag_seconds)
            if await foremost.reaches(seen):
                chosen = foremost
            self.waits.append(monotonic() - began)
        self.reads[chosen.name if chosen else "primary"] += 1
        if not chosen:
            self.fallbacks["behind" if ready else "none ready"] += 1
        return chosen

    def count_move(self, replica: Replica, reason: str) -> None:
        """A read session goes on at the primary. A session is one read, not two."""
        self.reads[replica.name] -= 1
        self.reads["primary"] += 1
        self.fallbacks[reason] += 1

    def expect(self, position: Position) -> None:
        self._sampled_at = monotonic()
        for replica in self._all:
            replica.expect(position)

    def _next(self, seen: Position) -> Replica | None:
        # On the way of every read: 3 % of it are 10 us.
        now = monotonic()
        for _ in self._all:
            self._turn = (self._turn + 1) % len(self._all)
            replica = self._all[self._turn]
            if replica.is_ready(now) and (not seen or replica.has(seen)):
                return replica
        return None

    def _ready(self) -> list[Replica]:
        now = monotonic()
        return [replica for replica in self._all if replica.is_ready(now)]

    async def _ask(self) -> None:
        """After a rest nobody knows how they are: wait for the first to answer."""
        looks = {look for replica in self._all if (look := replica.look())}
        until = monotonic() + DOUBT_SECONDS
        while looks and not self._ready():
            done, looks = await asyncio.wait(
                looks,
                timeout=max(until - monotonic(), 0),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not done:
                return

    def _look_soon(self) -> None:
        self._is_used = True
        loop = asyncio.get_running_loop()
        if self._looks_in is not loop:  # none yet, or that of before a fork
            self._looks_in = loop
            loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        if not self._all:
            return
        now = monotonic()
        for replica in self._all:
            replica.look()
        if not self._sample and now - self._sampled_at > SAMPLE_SECONDS:
            # Whatever the answer: a name may lead to a standby for a minute.
            self._sampled_at = now
            self._sample = asyncio.create_task(self._see_primary(), context=Context())
        show(self)
        in_use = any(replica.is_in_use() for replica in self._all)
        loop = asyncio.get_running_loop()
        self._looks_in = loop if self._is_used or in_use else None
        self._is_used = False
        if self._looks_in:
            loop.call_later(LOOK_SECONDS, self._look)

    async def _see_primary(self) -> None:
        engine = self._primary
        try:
            async with engine.connect() as connection:
                is_primary = (await connection.exec_driver_sql(IS_PRIMARY)).scalar_one()
                if is_primary:
                    self.expect(
                        await connection.run_sync(read_written, engine.sync_engine)
                    )
            if not is_primary:
                retire(engine, "the address of the primary leads to a standby")
        except SQLAlchemyError:
            pass  # who cannot be reached does not move either
        finally:
            self._sample = None

    async def _end(self) -> None:
        self._all = []  # nobody looks any more
        if self._sample:
            await asyncio.wait({self._sample}, timeout=SILENT_SECONDS)
