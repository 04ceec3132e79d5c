"""How far a server is: by the clock, since readers of Aurora have no log to replay."""

from time import time
from typing import Any

from sqlalchemy import Connection, Engine, Row

from .position import Position

# Whoever has written reads from the primary for so long, and for as long as a reader is
# behind. Usually that is less than 0.1 s.
STICK_SECONDS = 2
# To wait would not be worth it.
WAIT_SECONDS = 0
# The number of Aurora is the only one there is: a reader whose lag is NULL is not used.
TELLS_LAG = True


def read_written(_: Connection, __: Engine) -> Position:
    """Of the primary, after a COMMIT: whoever is there has what was committed."""
    return {"": _milliseconds()}


def replayed(look: Row[Any]) -> Position:
    seconds = STICK_SECONDS + float(look.lag_seconds or 0)
    return {"": _milliseconds() - round(1000 * seconds)}


def _milliseconds() -> int:
    return round(time() * 1000)
