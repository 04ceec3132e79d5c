"""Faults: what an error of the database means for the caller, by its code."""

from enum import StrEnum

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .engine import dialect


class FaultKind(StrEnum):
    CONFLICT = "conflict"  # a constraint rejects it; the same request fails again
    BUSY = "busy"  # rolled back or never started; worth another try
    TIMEOUT = "timeout"  # too slow, rolled back
    UNAVAILABLE = "unavailable"  # the database cannot be reached or cannot serve
    OUTCOME_UNKNOWN = "outcome-unknown"  # lost during COMMIT: committed or not


class CommitOutcomeUnknown(Exception):
    """The connection was lost, or the time was up, during COMMIT."""


class OperationTimeout(Exception):
    """A limit of this service has ended the operation, not one of the database."""


def safe_message(error: BaseException) -> str:
    """The cause in one line for the log; it contains no value of the data."""
    cause = getattr(error, "orig", None) or error.__cause__ or error
    return dialect.safe_text(cause).split("\n")[0]


def classify(error: BaseException) -> FaultKind | None:
    """The kind of fault; None if the error is a bug of the service."""
    if isinstance(error, CommitOutcomeUnknown):
        return FaultKind.OUTCOME_UNKNOWN
    if isinstance(error, PoolTimeoutError):
        return FaultKind.BUSY
    if isinstance(error, OperationTimeout):
        return FaultKind.TIMEOUT
    if isinstance(error, DBAPIError):
        if code := dialect.classify_code(error):
            return FaultKind(code)
        if error.connection_invalidated:
            return FaultKind.UNAVAILABLE
    return None
