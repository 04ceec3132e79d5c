"""A URL is taken apart; no message repeats what may hold the password."""

from typing import Any

from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from .connect import DRIVER
from .dialect import DIALECT, SCHEMES

URL_PARAMETERS = ("sslmode", "sslrootcert")


def parts_of(secret: str | SecretStr, name: str = "DATABASE_URL") -> dict[str, Any]:
    """The settings that a URL stands for. `name` is the variable that it comes from."""
    text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            f"{name} is not a URL: write {SCHEMES[0]}://user:password@host/name."
        ) from None
    if url.drivername not in (*SCHEMES, f"{DIALECT}+{DRIVER}"):
        raise ValueError(
            f"{name} asks for {url.drivername}, but this service speaks {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:// or {SCHEMES[0]}://."
        )
    for parameter in url.query:
        if parameter not in URL_PARAMETERS:
            raise ValueError(
                f"{name} has the parameter {parameter}, which is not understood:"
                f" remove it ({' and '.join(URL_PARAMETERS)} are known)."
            )
    parts = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "name": url.database,
        **url.query,
    }
    given = {name: part for name, part in parts.items() if part not in (None, "")}
    return {f"database_{name}": part for name, part in given.items()}
