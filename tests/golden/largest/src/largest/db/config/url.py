"""Parses a URL of the environment; no message repeats it, nor its password."""

from typing import Any

from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from .backend import DIALECT, DRIVER, SCHEMES

URL_PARAMETERS = ("sslmode", "sslrootcert")


def parse_url(url: str | SecretStr, variable: str = "DATABASE_URL") -> dict[str, Any]:
    """The settings that a URL contains; ValueError names the variable."""
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            f"{variable} is not a URL: write {SCHEMES[0]}://user:password@host/name."
        ) from None
    if parsed.drivername not in (*SCHEMES, f"{DIALECT}+{DRIVER}"):
        raise ValueError(
            f"{variable} asks for {parsed.drivername}, but this service uses {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:// or {SCHEMES[0]}://."
        )
    for parameter in parsed.query:
        if parameter not in URL_PARAMETERS:
            raise ValueError(
                f"{variable} has the unknown parameter {parameter}:"
                f" remove it ({' and '.join(URL_PARAMETERS)} are known)."
            )
    parts = {
        "host": parsed.host,
        "port": parsed.port,
        "user": parsed.username,
        "password": parsed.password,
        "name": parsed.database,
        **parsed.query,
    }
    return {f"database_{key}": part for key, part in parts.items() if part}
