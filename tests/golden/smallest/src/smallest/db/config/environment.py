"""Settings from environment variables; a wrong one ends the process in one sentence."""

import os
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

SECRETS = Path(os.environ.get("SECRETS_DIR") or "/run/secrets")


class EnvironmentSettings(BaseSettings):
    """A field `log_level` is the variable LOG_LEVEL, or a file of SECRETS_DIR."""

    model_config = SettingsConfigDict(
        # pydantic-settings warns about a folder that does not exist.
        secrets_dir=SECRETS if SECRETS.is_dir() else None,
        # `KEY=` in an env file means: not set.
        env_ignore_empty=True,
        # A rejected value may be a secret.
        hide_input_in_errors=True,
    )

    @classmethod
    def load(cls, **values: Any) -> Self:
        """Read and check every variable; SystemExit has a line for each wrong one."""
        try:
            return cls(**values)
        except SettingsError as error:
            raise SystemExit(f"{error}.") from None
        except ValidationError as error:
            raise SystemExit("\n".join(map(_format_error, error.errors()))) from None


def positive_number(variable: str, default: int) -> int:
    """The value of a variable that is no field; SystemExit names a wrong one."""
    text = os.environ.get(variable) or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SystemExit(f"{variable}={text}: write a whole number from 1 on.")
    return int(text)


def require(owner: type, *names: str) -> None:
    """Stop the start when a release of a library lacks what this service overrides.

    Without this check the override would do nothing, silently. SystemExit names the
    module of the library and what is missing.
    """
    if missing := [name for name in names if not hasattr(owner, name)]:
        raise SystemExit(
            f"{owner.__module__} has no {', '.join(missing)} any more:"
            " install an older release of it, or update this service by `make update`."
        )


def _format_error(problem: Any) -> str:
    variable = ".".join(map(str, problem["loc"])).upper()
    message: str = problem["msg"].removeprefix("Value error, ")
    return f"{variable}: {message}." if variable else message
