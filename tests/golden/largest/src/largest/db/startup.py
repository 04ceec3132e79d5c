"""What the server is told as a session starts: its limits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "server_settings": {
            "application_name": __name__.partition(".")[0],
            "timezone": "UTC",
            "lock_timeout": _milliseconds(settings.database_lock_timeout_seconds),
            "statement_timeout": _milliseconds(
                settings.database_statement_timeout_seconds
            ),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.database_idle_in_transaction_timeout_seconds
            ),
        }
    }


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
