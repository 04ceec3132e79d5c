"""The queue in front of the pool: first come, first served, and refused early."""

import asyncio
from collections import deque
from time import monotonic

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util import queue
from sqlalchemy.util.concurrency import await_

# Over how long the pace of the line is taken: some hundred hand-overs on a busy pool.
WINDOW_SECONDS = 4


class FairQueue(queue.QueueCommon[ConnectionPoolEntry]):
    """Idle connections and the callers that wait for one.

    A connection that comes back goes to the caller that has waited longest.
    SQLAlchemy's own queue only wakes that caller, a newcomer may be faster,
    and whoever was overtaken starts again at the end of the line.
    """

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize = maxsize
        self.use_lifo = use_lifo
        self._idle: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry]] = deque()
        # How fast the line moves: hand-overs in the time that it has been watched.
        self._handed_over = 0.0
        self._watched_from = self._watched_until = 0.0

    def empty(self) -> bool:
        return not self._idle

    def full(self) -> bool:
        return len(self._idle) >= self.maxsize

    def qsize(self) -> int:
        return len(self._idle)

    def put_nowait(self, item: ConnectionPoolEntry) -> None:
        if self._hand_over(item):
            return
        if self.full():
            raise queue.Full
        self._idle.append(item)

    def put(
        self,
        item: ConnectionPoolEntry,
        block: bool = True,
        timeout: float | None = None,
    ) -> None:
        self.put_nowait(item)

    def get_nowait(self) -> ConnectionPoolEntry:
        if not self._idle:
            raise queue.Empty
        return self._idle.pop() if self.use_lifo else self._idle.popleft()

    def get(
        self, block: bool = True, timeout: float | None = None
    ) -> ConnectionPoolEntry:
        if self._idle or not block:
            return self.get_nowait()
        if timeout and self._is_hopeless(timeout):
            # Refuse now, while the caller can still go elsewhere. A line that is
            # short refuses nobody, so this heals by itself.
            raise queue.Empty
        return await_(self._wait_in_line(timeout))

    def _hand_over(self, item: ConnectionPoolEntry) -> bool:
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

    async def _wait_in_line(self, at_most: float | None) -> ConnectionPoolEntry:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[ConnectionPoolEntry] = loop.create_future()
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
                self._pass_on(waiter.result())
            raise
        finally:
            if timer:
                timer.cancel()

    def _pass_on(self, item: ConnectionPoolEntry) -> None:
        """Keep the connection that reached a caller which was cancelled meanwhile.

        Above maxsize if need be: it is still counted as open, and the next
        connection to come back is closed in its stead.
        """
        if not self._hand_over(item):
            self._idle.append(item)


def _give_up(waiter: asyncio.Future[ConnectionPoolEntry]) -> None:
    if not waiter.done():
        waiter.set_exception(queue.Empty())


class FairPool(AsyncAdaptedQueuePool):
    """SQLAlchemy's asyncio pool with a queue that nobody can overtake.

    Rests on two names of SQLAlchemy that are not public, `_queue_class` and
    `sqlalchemy.util.queue`: hence `sqlalchemy<2.2` in pyproject.toml.
    """

    _queue_class = FairQueue
