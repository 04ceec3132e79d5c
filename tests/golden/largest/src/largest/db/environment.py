"""Settings come from the environment; a wrong one ends the process in one sentence."""

from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

SECRETS = Path("/run/secrets")


class EnvironmentSettings(BaseSettings):
    """A field `log_level` is the variable LOG_LEVEL, or /run/secrets/log_level."""

    model_config = SettingsConfigDict(
        # pydantic-settings warns about a folder that does not exist.
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        # `KEY=` in an env file means: not set.
        env_ignore_empty=True,
        # A refused value may be a secret.
        hide_input_in_errors=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read and check every variable, or exit with a line for each wrong one."""
        try:
            return cls(**values)
        except SettingsError as error:
            raise SystemExit(f"{error}.") from None
        except ValidationError as error:
            raise SystemExit("\n".join(map(_sentence, error.errors()))) from None


def _sentence(problem: ErrorDetails) -> str:
    variable = ".".join(map(str, problem["loc"])).upper()
    message = problem["msg"].removeprefix("Value error, ")
    return f"{variable}: {message}." if variable else message
