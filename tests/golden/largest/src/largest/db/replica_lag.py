"""How far a replica is behind: as long as it has not reached where the primary was."""

from collections import deque
from time import monotonic

from .position import Position, includes

# Where the primary was, and when, so far apart. Of too many every second one goes: the
# oldest is the lag.
GOALS, GOAL_SECONDS = 100, 0.25


class Lag:
    """Nobody is behind a primary that stays where it is, however long."""

    def __init__(self) -> None:
        self._goals: deque[tuple[float, Position]] = deque()

    def expect(self, position: Position) -> None:
        """The primary is there: the time until the replica is too is its lag."""
        now = monotonic()
        if self._goals and now - self._goals[-1][0] < GOAL_SECONDS:
            return
        if len(self._goals) == GOALS:
            self._goals = deque([*self._goals][::2])
        self._goals.append((now, position))

    def seconds(self, position: Position) -> float:
        """Of a replica that is there."""
        while self._goals and includes(position, self._goals[0][1]):
            self._goals.popleft()
        return monotonic() - self._goals[0][0] if self._goals else 0.0
