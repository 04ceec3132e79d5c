"""Gate of the connection pool: first come, first served, and rejected early."""

import asyncio
from collections import deque
from time import monotonic

# The pace of the queue is measured over so long: some hundred permits of a busy pool.
WINDOW_SECONDS = 4


class Aborted(TimeoutError):
    """The server is silent: the caller tries elsewhere."""


class Gate:
    """A semaphore that serves first come, first served, and predicts the wait.

    A permit that is released goes to the caller that has waited longest. The queue of
    SQLAlchemy's own pool wakes that caller, a newcomer may be faster, and the caller
    that was overtaken starts again at the end.
    """

    def __init__(self, permits: int) -> None:
        self.permits = self.free = permits
        self._waiters: deque[asyncio.Future[None]] = deque()
        # Permits passed on since the queue was last empty, and between which times.
        self._passed, self._since, self._until = 0.0, 0.0, 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def acquire_nowait(self) -> bool:
        if not self.free:
            return False
        self.free -= 1
        return True

    def predicted_wait(self, timeout: float) -> float:
        """Seconds for one more caller; 0 until there is enough to judge by.

        Connections come back in rounds, and a burst of callers stalls the loop: two
        rounds and a third of the timeout make a pace, less is an accident.
        """
        seconds = self._until - self._since
        if (
            self._passed < 2 * self.permits
            or seconds < min(timeout, WINDOW_SECONDS) / 3
        ):
            return 0
        return len(self._waiters) * seconds / self._passed

    async def acquire(self, seconds: float) -> None:
        """Wait for a permit: TimeoutError after so many seconds, or at once if the wait
        would be longer. A queue that is short rejects no caller, so this recovers.
        """
        if self.predicted_wait(seconds) > seconds:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        if not self._waiters:
            self._passed, self._since, self._until = 0.0, monotonic(), monotonic()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(seconds, _reject, waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif not waiter.cancelled() and not waiter.exception():
                self.release()  # got a permit, and was cancelled before it could run
            raise
        finally:
            timer.cancel()

    def release(self) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if self._waiters and (loop := self._waiters[0].get_loop()) is not running:
            # The garbage collector has found the connection, in another thread.
            loop.call_soon_threadsafe(self._pass_on)
        else:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._measure()
                waiter.set_result(None)
                return
        self.free += 1

    def reject_all(self) -> None:
        """Let every waiting caller go elsewhere."""
        for waiter in self._waiters:
            _reject(waiter, Aborted())

    def _measure(self) -> None:
        self._passed += 1
        self._until = monotonic()
        if self._until - self._since > WINDOW_SECONDS:
            # Forget the older half, so that the pace follows the load.
            self._since = (self._since + self._until) / 2
            self._passed /= 2


def _reject(waiter: "asyncio.Future[None]", error: TimeoutError | None = None) -> None:
    if not waiter.done():
        waiter.set_exception(error or TimeoutError())
