"""What an error means for the caller: told by its code, never by its class."""

from enum import StrEnum

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from . import connect


class Fault(StrEnum):
    CONFLICT = "conflict"  # the data say no; the same request will fail again
    BUSY = "busy"  # rolled back or never started; worth another try
    TIMEOUT = "timeout"  # too slow, rolled back
    UNAVAILABLE = "unavailable"  # the database cannot be reached or cannot serve
    OUTCOME_UNKNOWN = "outcome-unknown"  # lost during COMMIT: done or not, who knows


class OutcomeUnknown(Exception):
    """The connection broke during COMMIT. Only the commit site can know this."""


def describe(error: BaseException) -> str:
    """The cause in one line, fit for a log: the lines after it may quote the data."""
    return str(getattr(error, "orig", None) or error.__cause__ or error).split("\n")[0]


def classify(error: BaseException) -> Fault | None:
    """Name the fault, or None when the error is a bug of the service."""
    if isinstance(error, OutcomeUnknown):
        return Fault.OUTCOME_UNKNOWN
    if isinstance(error, PoolTimeoutError):
        return Fault.BUSY
    if isinstance(error, DBAPIError):
        if code := connect.fault(error):
            return Fault(code)
        if error.connection_invalidated:
            return Fault.UNAVAILABLE
    return None
