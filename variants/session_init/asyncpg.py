"""Start of a session: its timeouts, and the name of this service."""

from typing import Any

from ..config.limits import Limits


def session_options(limits: Limits) -> dict[str, Any]:
    return {
        "server_settings": {
            "application_name": __name__.partition(".")[0],
            "timezone": "UTC",
            "lock_timeout": _milliseconds(limits.lock_timeout_seconds),
            "statement_timeout": _milliseconds(limits.statement_timeout_seconds),
            "idle_in_transaction_session_timeout": _milliseconds(
                limits.idle_in_transaction_timeout_seconds
            ),
        }
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
