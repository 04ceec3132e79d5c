"""Start of a session: its timeouts, and the name of this service."""

from typing import Any

from ..config.limits import Limits


def session_options(limits: Limits) -> dict[str, Any]:
    timeouts = {
        "lock_timeout": limits.lock_timeout_seconds,
        "statement_timeout": limits.statement_timeout_seconds,
        "idle_in_transaction_session_timeout": (
            limits.idle_in_transaction_timeout_seconds
        ),
    }
    return {
        "application_name": __name__.partition(".")[0],
        "options": "-c timezone=UTC "
        + " ".join(
            f"-c {name}={round(seconds * 1000)}" for name, seconds in timeouts.items()
        ),
    }
