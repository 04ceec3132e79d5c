"""Faults: what an error of the database means for the caller, by its code."""

from enum import StrEnum

from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.exc import DataError, DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm.exc import StaleDataError

from .engine import UnfitValue, dialect


class FaultKind(StrEnum):
    # A constraint rejects it, so the same request fails again; or a row that was read
    # as an object is changed or deleted by another session meanwhile.
    CONFLICT = "conflict"
    INVALID_VALUE = "invalid-value"  # its column cannot hold it; fails again, too
    BUSY = "busy"  # rolled back or never started; worth another try
    TIMEOUT = "timeout"  # too slow, rolled back
    UNAVAILABLE = "unavailable"  # the database cannot be reached or cannot serve
    # Lost during COMMIT: committed or not. Or after a COMMIT of the handler's own.
    OUTCOME_UNKNOWN = "outcome-unknown"


# What an encoder says of a value: the type of a column, or a driver. A TypeError is a
# bug of the service.
VALUE_ERRORS = (ValueError, ArithmeticError, LookupError)


class CommitOutcomeUnknown(Exception):
    """The connection was lost, or the time was up, during COMMIT; or a part of what the
    handler has written is committed.
    """


class OperationTimeout(Exception):
    """A limit of this service has ended the operation, not one of the database."""


@event.listens_for(Engine, "handle_error")
def _name_value_error(context: ExceptionContext) -> DataError | None:
    """Some drivers let the error of an encoder pass as it is."""
    error = context.original_exception
    is_raw = context.statement and not context.sqlalchemy_exception
    if is_raw and isinstance(error, (OverflowError, UnicodeError)):
        return DataError(context.statement, None, error, hide_parameters=True)
    return None


def safe_message(error: BaseException) -> str:
    """The cause in one line for the log; it contains no value of the data."""
    if isinstance(error, BaseExceptionGroup):
        return safe_message(error.exceptions[0])
    cause = getattr(error, "orig", None) or error.__cause__ or error
    if _is_value_error(error):
        root = _root(cause)
        reason = root if isinstance(root, UnfitValue) else type(root).__name__
        return f"a parameter cannot be sent: {reason}"
    return dialect.safe_text(cause).split("\n")[0]


def classify(error: BaseException) -> FaultKind | None:
    """The kind of fault; None if the error is a bug of the service."""
    if isinstance(error, BaseExceptionGroup):  # of a TaskGroup
        kinds = [classify(each) for each in error.exceptions]
        is_unknown = FaultKind.OUTCOME_UNKNOWN in kinds
        first = FaultKind.OUTCOME_UNKNOWN if is_unknown else kinds[0]
        return None if None in kinds else first
    if isinstance(error, CommitOutcomeUnknown):
        return FaultKind.OUTCOME_UNKNOWN
    if isinstance(error, PoolTimeoutError):
        return FaultKind.BUSY
    if isinstance(error, OperationTimeout):
        return FaultKind.TIMEOUT
    if isinstance(error, StaleDataError):
        return FaultKind.CONFLICT
    if isinstance(error, DBAPIError):
        if code := dialect.classify_code(error):
            return FaultKind(code)
        if error.connection_invalidated:
            return FaultKind.UNAVAILABLE
    if _is_value_error(error):
        return FaultKind.INVALID_VALUE
    return None


def _is_value_error(error: BaseException) -> bool:
    if not isinstance(error, StatementError):
        return False
    root = _root(error.orig)
    # The error of a certificate is a ValueError as well.
    return isinstance(root, VALUE_ERRORS) and not isinstance(root, OSError)


def _root(error: BaseException | None) -> BaseException | None:
    while error and error.__cause__:
        error = error.__cause__
    return error
