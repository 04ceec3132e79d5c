"""What an error means for the caller: told by its code, never by its class."""

from enum import StrEnum

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from . import dialect


class Fault(StrEnum):
    CONFLICT = "conflict"  # the data say no; the same request will fail again
    BUSY = "busy"  # rolled back or never started; worth another try
    TIMEOUT = "timeout"  # too slow, rolled back
    UNAVAILABLE = "unavailable"  # the database cannot be reached or cannot serve
    OUTCOME_UNKNOWN = "outcome-unknown"  # lost during COMMIT: done or not, who knows


class OutcomeUnknown(Exception):
    """The connection broke during COMMIT. Only the commit site can know this."""


class TookTooLong(Exception):
    """Ended by the service, and not by the database."""


def describe(error: BaseException) -> str:
    """The cause in one line, fit for a log: no value of the data is in it."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return dialect.message(cause).split("\n")[0]


def classify(error: BaseException) -> Fault | None:
    """Name the fault, or None when the error is a bug of the service."""
    if isinstance(error, OutcomeUnknown):
        return Fault.OUTCOME_UNKNOWN
    if isinstance(error, PoolTimeoutError):
        return Fault.BUSY
    if isinstance(error, TookTooLong):
        return Fault.TIMEOUT
    if isinstance(error, DBAPIError):
        if code := dialect.fault(error):
            return Fault(code)
        if error.connection_invalidated:
            return Fault.UNAVAILABLE
    return None
