"""Error answers: problem documents (RFC 9457), which say what happened to the data."""

import json
from collections.abc import Mapping
from http.client import responses
from typing import Any

from fastapi.responses import JSONResponse

from ...db.errors import FaultKind
from ..middleware import request_id

# Status and detail.
PROBLEMS = {
    FaultKind.CONFLICT: (409, "A constraint of the database rejects this change."),
    FaultKind.INVALID_VALUE: (
        422,
        "A value is too large, too long, or not of the kind that its column holds."
        " Nothing was changed.",
    ),
    FaultKind.BUSY: (503, "No connection or lock in time. Nothing was changed: retry."),
    FaultKind.TIMEOUT: (503, "This took too long. Nothing was changed."),
    FaultKind.UNAVAILABLE: (503, "The database is unavailable. Nothing was changed."),
    FaultKind.OUTCOME_UNKNOWN: (504, "Committed or not, or in part: check first."),
}


class ProblemDocument(JSONResponse):
    media_type = "application/problem+json"

    def render(self, content: Any) -> bytes:
        # In ASCII: a name that the client has sent may be no valid Unicode.
        return json.dumps(content, separators=(",", ":")).encode()


def problem(
    status: int,
    detail: Any,
    *,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extra: Any,
) -> JSONResponse:
    """`kind` tells problems of one status apart; a client may rely on it."""
    body = {
        "type": f"urn:problem:{kind}" if kind else "about:blank",
        "title": responses.get(status, "Error"),
        "status": status,
        "detail": detail,
        "request_id": request_id.get(),
        **extra,
    }
    return ProblemDocument(body, status, headers)
