"""Token provider Microsoft Entra: tokens of the managed identity of the service."""

import time
from functools import cache

from azure.identity import DefaultAzureCredential

PROVIDER = "Microsoft Entra"
SCOPE = "https://ossrdbms-aad.database.windows.net/.default"
# Before the end of a token, since clocks differ.
MARGIN_SECONDS = 60


def fetch_token(host: str, port: int, user: str) -> tuple[str, float]:
    """A token, and for how many seconds to use it."""
    token = _credential().get_token(SCOPE)
    return token.token, token.expires_on - time.time() - MARGIN_SECONDS


@cache
def _credential() -> DefaultAzureCredential:
    return DefaultAzureCredential()
