"""What the pooler is told as a session starts: who asks, and nothing else.

Each transaction may be in another session of the server, so nothing is kept in one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(_: "DatabaseSettings") -> dict[str, Any]:
    return {
        # A pooler refuses a session that brings limits: deploy/bootstrap.sql has them.
        "application_name": __name__.partition(".")[0],
        # Nothing is prepared by name: another session of the server may have the same
        # name for another statement, and answer with its rows.
        "prepare_threshold": None,
    }
