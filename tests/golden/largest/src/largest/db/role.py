"""Whether a server is the primary."""

from typing import Any

from .dialect import READ_ONLY

IS_PRIMARY = "SELECT NOT pg_is_in_recovery()"


def read_only_error(driver: Any, message: str) -> Exception:
    """What the server would say to the first write."""
    error: Exception = driver.OperationalError(message)
    setattr(error, "sqlstate", READ_ONLY)  # noqa: B010
    return error
