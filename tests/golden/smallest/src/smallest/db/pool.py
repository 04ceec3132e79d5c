"""The queue in front of the pool: first come, first served, and refused early."""

import asyncio
from collections import deque
from time import monotonic
from typing import Literal

from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection
from sqlalchemy.pool import ConnectionPoolEntry as Entry
from sqlalchemy.util import queue
from sqlalchemy.util.concurrency import await_

from .deadline import acquire_until

Seconds = float | None
# Over how long the pace of the line is taken: some hundred hand-overs on a busy pool.
WINDOW_SECONDS = 4


class _Place(queue.Empty):
    """No connection, but the right to open one."""


class FairQueue(queue.QueueCommon[Entry]):
    """Idle connections and the callers that wait for one.

    A connection that comes back goes to the caller that has waited longest.
    SQLAlchemy's own queue only wakes that caller, a newcomer may be faster,
    and whoever was overtaken starts again at the end of the line.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._idle: deque[Entry] = deque()
        self._waiting: deque[asyncio.Future[Entry]] = deque()
        # To open a connection: promised to callers that have not begun yet, and whether
        # there are more than those.
        self.places = 0
        self.has_room = True
        # How fast the line moves: hand-overs in the time that it has been watched.
        self._handed_over = 0.0
        self._watched_from = self._watched_until = 0.0

    def qsize(self) -> int:
        return len(self._idle)

    def put(self, item: Entry, block: bool = True, timeout: Seconds = None) -> None:
        if self._hand_over(item):
            return
        if len(self._idle) >= self.maxsize:
            raise queue.Full
        self._idle.append(item)

    def get(self, block: bool = True, timeout: Seconds = None) -> Entry:
        if self._idle:
            return self._idle.pop() if self.use_lifo else self._idle.popleft()
        if not block and (self.has_room or not self.places):
            raise queue.Empty
        if timeout and self._is_hopeless(timeout):
            # Refuse now, while the caller can still go elsewhere. A line that is
            # short refuses nobody, so this heals by itself.
            raise queue.Empty
        return await_(self._wait_in_line(timeout))

    def wake(self) -> None:
        """There is room for one more: let who has waited longest open it."""
        if waiter := self._next_in_line():
            self.places += 1
            waiter.set_exception(_Place())

    def _hand_over(self, item: Entry) -> bool:
        waiter = self._next_in_line()
        if not waiter:
            return False
        self._watch()
        waiter.set_result(item)
        return True

    def _next_in_line(self) -> asyncio.Future[Entry] | None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():  # else it has been told already, or has left
                return waiter
        return None

    def _watch(self) -> None:
        self._handed_over += 1
        self._watched_until = monotonic()
        if self._watched_until - self._watched_from > WINDOW_SECONDS:
            # Forget the older half, so that the pace follows the load.
            self._watched_from = (self._watched_from + self._watched_until) / 2
            self._handed_over /= 2

    def _is_hopeless(self, timeout: float) -> bool:
        watched = self._watched_until - self._watched_from
        # Connections come back in rounds, and a burst of callers stalls the loop:
        # two rounds and a third of the time limit make a pace, less is an accident.
        if self._handed_over < 2 * self.maxsize:
            return False
        if watched < min(timeout, WINDOW_SECONDS) / 3:
            return False
        return len(self._waiting) * watched / self._handed_over > timeout

    async def _wait_in_line(self, at_most: Seconds) -> Entry:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Entry] = loop.create_future()
        if not self._waiting:
            self._handed_over = 0.0
            self._watched_from = self._watched_until = monotonic()
        self._waiting.append(waiter)
        timer = loop.call_later(at_most, give_up, waiter) if at_most else None
        try:
            return await waiter
        except BaseException as error:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.cancelled():
                pass
            elif isinstance(waiter.exception(), _Place):
                self.places -= 1
                if not isinstance(error, _Place):  # cancelled meanwhile
                    self.wake()
            elif not waiter.exception():
                # It has one, but was cancelled meanwhile: pass it on, or keep it. Above
                # maxsize if need be; the next to come back is closed in its stead.
                passed_on = self._hand_over(waiter.result())
                if not passed_on:
                    self._idle.append(waiter.result())
            raise
        finally:
            if timer:
                timer.cancel()


def give_up(waiter: asyncio.Future[Entry]) -> None:
    if not waiter.done():
        waiter.set_exception(queue.Empty())


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with a queue that nobody can overtake.

    Rests on names of SQLAlchemy that are not public, `_queue_class`, `_do_get`,
    `_dec_overflow` and `sqlalchemy.util`: hence `sqlalchemy<2.2` in pyproject.toml.
    """

    _queue_class = FairQueue
    _pool: FairQueue

    def waiting(self) -> int:
        return len(self._pool._waiting)

    def connect(self) -> PoolProxiedConnection:
        token = acquire_until.set(monotonic() + self._timeout)
        try:
            return super().connect()
        finally:
            acquire_until.reset(token)

    def dispose(self) -> None:
        # It takes what is idle, and must not wait in line for what is in use.
        self._pool.has_room = True
        super().dispose()

    def _do_get(self) -> Entry:
        free = self._max_overflow - self._overflow
        self._pool.has_room = free > self._pool.places
        return super()._do_get()

    def _dec_overflow(self) -> Literal[True]:
        # A connect has failed, or what came back was one too many.
        super()._dec_overflow()
        self._pool.wake()
        return True
