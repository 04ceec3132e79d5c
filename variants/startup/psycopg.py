"""What the server is told as a session starts: its limits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(settings: "DatabaseSettings") -> dict[str, Any]:
    limits = {
        "lock_timeout": settings.database_lock_timeout_seconds,
        "statement_timeout": settings.database_statement_timeout_seconds,
        "idle_in_transaction_session_timeout": (
            settings.database_idle_in_transaction_timeout_seconds
        ),
    }
    return {
        "application_name": __name__.partition(".")[0],
        "options": "-c timezone=UTC "
        + " ".join(
            f"-c {name}={round(seconds * 1000)}" for name, seconds in limits.items()
        ),
    }
