"""Start of a session: the name of this service.

Nothing else, since the pooler may give each transaction another session.
"""

from typing import Any

from ..config.limits import Limits


def session_options(_: Limits) -> dict[str, Any]:
    return {
        # A pooler rejects a session that sets timeouts: deploy/bootstrap.sql has them.
        "application_name": __name__.partition(".")[0],
        # Nothing is prepared by name: another session of the server may have the same
        # name for another statement, and answer with its rows.
        "prepare_threshold": None,
    }
