"""By when the caller must have its connection: queue, check and connect share it."""

from contextvars import ContextVar
from time import monotonic

acquire_until: ContextVar[float] = ContextVar("acquire_until", default=float("inf"))


def seconds_left(at_most: float) -> float:
    """What the caller may still wait for a connection."""
    return min(at_most, max(acquire_until.get() - monotonic(), 0.1))
