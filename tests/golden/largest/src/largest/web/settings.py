"""Variables of the web service."""

from typing import Literal

from pydantic import PositiveInt

from ..db.config.environment import EnvironmentSettings


class WebSettings(EnvironmentSettings):
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # A body is held in memory, once for each request in progress.
    max_body_bytes: PositiveInt = 1_000_000
