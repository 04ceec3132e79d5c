"""Token provider Google IAM: tokens of the service account of the service."""

from datetime import UTC, datetime
from functools import partial
from typing import Any

import google.auth
from google.auth.transport.requests import Request

PROVIDER = "Google IAM"
SCOPE = "https://www.googleapis.com/auth/sqlservice.login"
TIMEOUT_SECONDS = 5
# Before the end of a token, since clocks differ.
MARGIN_SECONDS = 60


def fetch_token(host: str, port: int, user: str) -> tuple[str, float]:
    """A token, and for how many seconds to use it."""
    credentials: Any = google.auth.default(scopes=[SCOPE])[0]
    credentials.refresh(partial(Request(), timeout=TIMEOUT_SECONDS))
    left = credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)
    return credentials.token, left.total_seconds() - MARGIN_SECONDS
