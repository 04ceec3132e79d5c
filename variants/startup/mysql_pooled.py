"""What the proxy is told as a session starts: only what it keeps track of.

Anything else would pin the session to one of the server's, for as long as it lives: the
limits are in the proxy's initialization query, which the README has.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(_: "DatabaseSettings") -> dict[str, Any]:
    return {
        "statements": (
            # Without it some servers cut a text that is too long, and say nothing.
            "SET time_zone='+00:00', sql_mode='TRADITIONAL'",
            # The name of its variable differs between the two servers.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )
    }
