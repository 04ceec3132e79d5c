"""Whether a server is the primary."""

from typing import Any

from .dialect import READ_ONLY

IS_PRIMARY = "SELECT NOT (@@read_only OR @@innodb_read_only)"


def read_only_error(driver: Any, message: str) -> Exception:
    """What the server would say to the first write."""
    error: Exception = driver.OperationalError(min(READ_ONLY), message)
    return error
