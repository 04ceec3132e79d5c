"""The queue in front of the pool: first come, first served, and refused early."""

import asyncio
from collections import deque
from time import monotonic

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import ConnectionPoolEntry as Entry
from sqlalchemy.util import queue
from sqlalchemy.util.concurrency import await_

Seconds = float | None
# Over how long the pace of the line is taken: some hundred hand-overs on a busy pool.
WINDOW_SECONDS = 4


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
        if not block:
            raise queue.Empty
        if timeout and self._is_hopeless(timeout):
            # Refuse now, while the caller can still go elsewhere. A line that is
            # short refuses nobody, so this heals by itself.
            raise queue.Empty
        return await_(self._wait_in_line(timeout))

    def _hand_over(self, item: Entry) -> bool:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._watch()
                waiter.set_result(item)
                return True
        return False

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
        timer = loop.call_later(at_most, _give_up, waiter) if at_most else None
        try:
            return await waiter
        except BaseException:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.done() and not waiter.cancelled() and not waiter.exception():
                # It has one, but was cancelled meanwhile: pass it on, or keep it. Above
                # maxsize if need be; the next to come back is closed in its stead.
                passed_on = self._hand_over(waiter.result())
                if not passed_on:
                    self._idle.append(waiter.result())
            raise
        finally:
            if timer:
                timer.cancel()


def _give_up(waiter: asyncio.Future[Entry]) -> None:
    if not waiter.done():
        waiter.set_exception(queue.Empty())


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with a queue that nobody can overtake.

    Rests on two names of SQLAlchemy that are not public, `_queue_class` and
    `sqlalchemy.util.queue`: hence `sqlalchemy<2.2` in pyproject.toml.
    """

    _queue_class = FairQueue
