"""Timing: the deadline of a checkout, and a timer that repeats while it is used."""

import asyncio
from collections.abc import Callable
from contextvars import Context, ContextVar
from time import monotonic

# Queue, validation and connect share it.
checkout_deadline: ContextVar[float] = ContextVar("checkout", default=float("inf"))
# Between two uses a ticker goes on for so long: to start one costs a read 5 us.
REST_SECONDS = 1


def remaining(at_most: float) -> float:
    """Seconds until the deadline of the checkout; at least 0.1, at most `at_most`."""
    return min(at_most, max(checkout_deadline.get() - monotonic(), 0.1))


class Ticker:
    """Calls `tick` every `seconds`, until it has returned False for a second.

    `loop` is the event loop that the timer runs in; after a fork that of the parent.
    To use it costs a comparison: `if ticker.loop is not get_running_loop(): start()`.
    After a pause of the whole process, as by a limit of CPU, the answers that have come
    meanwhile are read before the next tick says that they are late.
    """

    def __init__(self, seconds: float, tick: Callable[[], bool]) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._seconds = seconds
        self._tick = tick
        self._rested = self._due_at = 0.0
        self._was_late = False

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.loop, self._rested = loop, 0
            self._schedule(loop)

    def stop(self) -> None:
        self._tick = lambda: False

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not in the context of the request that happens to start it.
        self._due_at = loop.time() + self._seconds
        loop.call_at(self._due_at, self._run, loop, context=Context())

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self.loop:
            return
        is_late = loop.time() - self._due_at > self._seconds
        if is_late and not self._was_late:
            self._was_late = True
            self._schedule(loop)
            return
        self._was_late = is_late
        try:
            self._rested = 0 if self._tick() else self._rested + self._seconds
        finally:  # also after an error: the next start() would change nothing
            if self._rested > REST_SECONDS:
                self.loop = None
            else:
                self._schedule(loop)
