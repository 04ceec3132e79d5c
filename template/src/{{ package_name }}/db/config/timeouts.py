"""How the timeouts relate: a shorter wait must fit in the longer one around it.

Their values are in settings.py and limits.py.
"""

from collections.abc import Callable, Mapping
from operator import le, lt

from .backend import DEADLOCK_TIMEOUT_SECONDS
from .limits import PING_SECONDS, RESET_SECONDS

Terms = tuple[str | float, ...]

ACQUIRE = "database_acquire_timeout_seconds"
CONNECT = "database_connect_timeout_seconds"
LOCK = "database_lock_timeout_seconds"
STATEMENT = "database_statement_timeout_seconds"
CLIENT = "database_client_timeout_seconds"
# The sum on the left must fit in the sum on the right, or the wrong limit ends a wait.
TIMEOUT_ORDER: tuple[tuple[Terms, Callable[[float, float], bool], Terms], ...] = (
    ((DEADLOCK_TIMEOUT_SECONDS,), lt, (LOCK,)),
    # The limits of the server first: they leave the connection usable.
    ((LOCK,), lt, (STATEMENT,)),
    ((STATEMENT,), lt, (CLIENT,)),
    ((PING_SECONDS, CONNECT), le, (ACQUIRE,)),
    # A statement in all, with a database in trouble.
    ((ACQUIRE, CLIENT, RESET_SECONDS), le, (10,)),
)


def check_order(values: Mapping[str, float]) -> None:
    """ValueError names the first two sums of `values` that do not fit."""
    for inner, fits, outer in TIMEOUT_ORDER:
        less, more = _sum(inner, values), _sum(outer, values)
        if not fits(less, more):
            raise ValueError(
                f"{_format(inner, less)} does not fit in {_format(outer, more)}:"
                " lower the first or raise the second."
            )


def _sum(terms: Terms, values: Mapping[str, float]) -> float:
    return sum(values[each] if isinstance(each, str) else each for each in terms)


def _format(terms: Terms, total: float) -> str:
    names = [t.upper() if isinstance(t, str) else f"{t} s" for t in terms]
    return " + ".join(names) + (f" = {total:g} s" if names != [f"{total:g} s"] else "")
