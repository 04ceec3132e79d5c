"""Start of a session: only what the proxy tracks.

Anything else pins the session to one of the server, for as long as it lives: the
timeouts are in the proxy's initialization query, which the README has.
"""

from typing import Any

from ..config.limits import Limits


def session_options(_: Limits) -> dict[str, Any]:
    return {
        "statements": (
            # Without it some servers cut a text that is too long, and say nothing.
            "SET time_zone='+00:00', sql_mode='TRADITIONAL'",
            # The name of its variable differs between the two servers.
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        )
    }
