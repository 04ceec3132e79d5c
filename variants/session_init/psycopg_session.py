"""Start of a session: the name of this service."""

from typing import Any

from ..config.limits import Limits


def session_options(_: Limits) -> dict[str, Any]:
    # A pooler rejects a session that sets timeouts: deploy/bootstrap.sql has them.
    return {"application_name": __name__.partition(".")[0]}
