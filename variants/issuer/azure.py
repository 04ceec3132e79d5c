"""Tokens of Microsoft Entra: of the managed identity that the service runs as."""

import time
from functools import cache

from azure.identity import DefaultAzureCredential

ISSUER = "Microsoft Entra"
SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
# Before its end, which clocks do not agree on.
MARGIN_SECONDS = 60


def issue(host: str, port: int, user: str) -> tuple[str, float]:
    """A token, and for how many seconds to use it."""
    token = _credential().get_token(SCOPE)
    return token.token, token.expires_on - time.time() - MARGIN_SECONDS


@cache
def _credential() -> DefaultAzureCredential:
    return DefaultAzureCredential()
