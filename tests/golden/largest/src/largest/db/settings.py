"""DATABASE_* variables: where the server is, how to log in, how long to wait."""

import ssl
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    FilePath,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .budget import MAX_OVERFLOW, POOL_SIZE
from .connect import DEFAULT_PORT, DIALECT, DRIVER, SCHEMES
from .environment import EnvironmentSettings

# 0 would mean: for ever.
Seconds = Annotated[float, Field(ge=0.01, le=86_400)]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
URL_PARAMETERS = ("sslmode", "sslrootcert")


class DatabaseSettings(EnvironmentSettings):
    # One URL, or its parts; the password may also come apart from the URL.
    database_url: SecretStr | None = None
    database_host: str
    database_port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    database_user: str
    database_password: SecretStr | None = None
    database_name: str

    # The names of libpq. Default: verify-full; on loopback: disable.
    database_sslmode: Literal["disable", "require", "verify-ca", "verify-full"]
    database_sslrootcert: FilePath | None = None

    # Together, what one process may open; the arithmetic is in budget.py.
    database_pool_size: PositiveInt = POOL_SIZE
    database_max_overflow: NonNegativeInt = MAX_OVERFLOW

    # Queue and connect, in all: whoever would wait longer gets a 503 instead.
    database_acquire_timeout_seconds: Seconds = 3
    database_connect_timeout_seconds: Seconds = 2
    # Each below the next, so that the most precise error wins; the first two above
    # PostgreSQL's deadlock_timeout of 1 s, else a deadlock is never called one.
    database_lock_timeout_seconds: Seconds = 2
    database_statement_timeout_seconds: Seconds = 5
    database_client_timeout_seconds: Seconds = 6
    database_idle_in_transaction_timeout_seconds: Seconds = 10

    @property
    def sqlalchemy_url(self) -> URL:
        password = self.database_password
        return URL.create(
            f"{DIALECT}+{DRIVER}",
            username=self.database_user,
            password=password.get_secret_value() if password else None,
            host=self.database_host,
            port=self.database_port,
            database=self.database_name,
        )

    @field_validator("database_sslrootcert")
    @classmethod
    def _check_certificate(cls, path: FilePath | None) -> FilePath | None:
        try:
            ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise ValueError(f"there is no certificate in {path}") from None
        return path

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        parts = _parts_of(values["database_url"]) if values.get("database_url") else {}
        if doubled := parts.keys() & values.keys():
            raise ValueError(
                f"DATABASE_URL and {', '.join(sorted(doubled)).upper()} say the same:"
                " remove one of them."
            )
        values = parts | values
        for name in ("database_host", "database_user", "database_name"):
            if not values.get(name):
                raise ValueError(
                    f"{name.upper()} is missing: set DATABASE_URL, or DATABASE_HOST,"
                    " DATABASE_USER and DATABASE_NAME."
                )
        local = values["database_host"] in LOOPBACK
        return {"database_sslmode": "disable" if local else "verify-full"} | values


def _parts_of(secret: str | SecretStr) -> dict[str, Any]:
    """Take DATABASE_URL apart; no message repeats what may hold the password."""
    text = secret.get_secret_value() if isinstance(secret, SecretStr) else secret
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            f"DATABASE_URL is not a URL: write {SCHEMES[0]}://user:password@host/name."
        ) from None
    if url.drivername not in (*SCHEMES, f"{DIALECT}+{DRIVER}"):
        raise ValueError(
            f"DATABASE_URL asks for {url.drivername}, but this service speaks {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:// or {SCHEMES[0]}://."
        )
    for parameter in url.query:
        if parameter not in URL_PARAMETERS:
            raise ValueError(
                f"DATABASE_URL has the parameter {parameter}, which is not understood:"
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
