"""All settings of the service, each an environment variable of the same name."""

from typing import Literal

from pydantic import PositiveInt

from .db.settings import DatabaseSettings


class Settings(DatabaseSettings):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # A body is held in memory, once for each request at work.
    max_body_bytes: PositiveInt = 1_000_000
    # Add yours here: `api_key: SecretStr` is the variable API_KEY.
