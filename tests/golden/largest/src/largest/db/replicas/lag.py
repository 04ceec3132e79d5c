"""Replication lag, estimated from positions of the primary."""

from collections import deque
from time import monotonic

from .watermark import Position, has_reached

# At most 100 samples, 0.25 s apart; beyond that every other one is dropped.
SAMPLES, SAMPLE_SECONDS = 100, 0.25


class LagEstimator:
    """The age of the oldest position of the primary that is not replayed yet.

    So an idle primary causes no lag.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Position]] = deque()

    def primary_at(self, position: Position) -> None:
        now = monotonic()
        if self._samples and now - self._samples[-1][0] < SAMPLE_SECONDS:
            return
        if len(self._samples) == SAMPLES:
            self._samples = deque([*self._samples][::2])
        self._samples.append((now, position))

    def seconds(self, replayed: Position) -> float:
        while self._samples and has_reached(replayed, self._samples[0][1]):
            self._samples.popleft()
        return monotonic() - self._samples[0][0] if self._samples else 0.0
