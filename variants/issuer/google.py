"""Tokens of Google IAM: of the service account that the service runs as."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import google.auth
from google.auth.transport.requests import Request

ISSUER = "Google IAM"
SCOPE = "https://www.googleapis.com/auth/sqlservice.login"
TIMEOUT_SECONDS = 5
# Before its end, which clocks do not agree on.
MARGIN_SECONDS = 60


def issue(host: str, port: int, user: str) -> tuple[str, float]:
    """A token, and for how many seconds to use it."""
    credentials: Any = google.auth.default(scopes=[SCOPE])[0]
    credentials.refresh(partial(Request(), timeout=TIMEOUT_SECONDS))
    left = credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)
    return credentials.token, left.total_seconds() - MARGIN_SECONDS
