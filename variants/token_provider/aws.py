"""Token provider AWS IAM: tokens are signed here, by the role of the service."""

import os
from functools import cache
from typing import Any

import boto3  # type: ignore[import-untyped]

PROVIDER = "AWS IAM"
# A token is valid for 15 minutes.
USE_SECONDS = 600


def fetch_token(host: str, port: int, user: str) -> tuple[str, float]:
    """A token, and for how many seconds to use it."""
    token = _client().generate_db_auth_token(
        DBHostname=host, Port=port, DBUsername=user
    )
    return token, USE_SECONDS


@cache
def _client() -> Any:
    # The platforms set AWS_REGION; the library reads AWS_DEFAULT_REGION.
    return boto3.client("rds", region_name=os.environ.get("AWS_REGION"))
