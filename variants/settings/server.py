"""DATABASE_* variables: where the server is, how to log in, how long to wait."""

import ssl
from collections.abc import Callable
from operator import le, lt
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    FilePath,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)
from sqlalchemy import URL

from .budget import MAX_OVERFLOW, POOL_SIZE
from .connect import DRIVER
from .dialect import DEFAULT_PORT, DIALECT, LOWEST_LIMIT_SECONDS
from .login import LOOPBACK, Login
from .url import parts_of
from .watch import PING_SECONDS, RESET_SECONDS

# 0 would mean: for ever.
Seconds = Annotated[float, Field(ge=0.01, le=86_400)]

# What names a server, and so belongs to no other one.
ELSEWHERE = ("_url", "_urls", "_hosts")
_SETTINGS = f"{__package__}.settings"

Parts = tuple[str | float, ...]
ACQUIRE = "database_acquire_timeout_seconds"
CONNECT = "database_connect_timeout_seconds"
LOCK = "database_lock_timeout_seconds"
STATEMENT = "database_statement_timeout_seconds"
CLIENT = "database_client_timeout_seconds"
LADDER: tuple[tuple[Parts, Callable[[float, float], bool], Parts], ...] = (
    # Else a deadlock is never found out.
    ((LOWEST_LIMIT_SECONDS,), lt, (LOCK,)),
    # The server's own limits first: they leave the connection clean.
    ((LOCK,), lt, (STATEMENT,)),
    ((STATEMENT,), lt, (CLIENT,)),
    ((PING_SECONDS, CONNECT), le, (ACQUIRE,)),
    # What one statement may take in all, on a database in trouble.
    ((ACQUIRE, CLIENT, RESET_SECONDS), le, (10,)),
)


class DatabaseSettings(Login):
    # One URL, or its parts.
    database_url: SecretStr | None = None
    database_host: str
    database_port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    database_user: str
    database_name: str

    # The names of libpq. Default: verify-full; on loopback: disable.
    database_sslmode: Literal["disable", "require", "verify-ca", "verify-full"]
    database_sslrootcert: FilePath | None = None

    # Together, what one process may open; the arithmetic is in budget.py.
    database_pool_size: PositiveInt = POOL_SIZE
    database_max_overflow: NonNegativeInt = MAX_OVERFLOW

    # Queue, check and connect, in all: whoever would wait longer gets a 503 instead.
    database_acquire_timeout_seconds: Seconds = 3
    database_connect_timeout_seconds: Seconds = 2
    # The last one cuts a connection that no longer answers. They fit into each other:
    # see LADDER.
    database_lock_timeout_seconds: Seconds = 2
    database_statement_timeout_seconds: Seconds = 5
    database_client_timeout_seconds: Seconds = 6
    database_idle_in_transaction_timeout_seconds: Seconds = 10

    # At start: whether what the whole fleet may open fits into what the server gives.
    # `refuse` ends the start if it does not.
    database_budget_check: Literal["warn", "off", "refuse"] = "warn"

    # An export in all, at the pace of its reader.
    database_export_timeout_seconds: Seconds = 300
    # Whether the warning about a connection that is out for 30 s says who took it.
    database_leak_trace: bool = False

    @property
    def connections(self) -> int:
        """What one process may open on one server."""
        return self.database_pool_size + self.database_max_overflow

    @property
    def exports_at_once(self) -> int:
        return max(1, self.database_pool_size // 4)

    def direct(self) -> Any:
        """Where migrations go: there is nothing in between."""
        return self

    def at(self, url: str | SecretStr, variable: str) -> Any:
        """These settings for the server of another URL.

        User, password, database and certificate are as here unless the URL has them;
        the port is that of the dialect. The environment is not read again, so pools
        and limits stay what this process was told. SystemExit names the variable.
        """
        # Without the fields of the service's own class, which no other server needs.
        own: Any = next(c for c in type(self).__mro__ if c.__module__ == _SETTINGS)
        values = {name: getattr(self, name) for name in own.model_fields}
        values |= dict.fromkeys(name for name in values if name.endswith(ELSEWHERE))
        values |= {"database_port": DEFAULT_PORT}
        if self.database_sslmode == _default_sslmode(self.database_host):
            del values["database_sslmode"]  # the other host may have another default
        return own.load(**values | parts_of(url, variable))

    @property
    def sqlalchemy_url(self) -> URL:
        """Without the password, which is asked for whenever one is needed."""
        return URL.create(
            f"{DIALECT}+{DRIVER}",
            username=self.database_user,
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

    def ssl_context(self) -> ssl.SSLContext | None:
        """Encryption exactly as DATABASE_SSLMODE says, or an error: never less."""
        if self.database_sslmode == "disable":
            return None
        context = ssl.create_default_context(cafile=self.database_sslrootcert)
        context.check_hostname = self.database_sslmode == "verify-full"
        if self.database_sslmode == "require" and not self.database_sslrootcert:
            context.verify_mode = ssl.CERT_NONE
        return context

    @model_validator(mode="after")
    def _check_limits(self) -> Self:
        """Each wait inside of the next, or the wrong one ends it."""
        for inner, fits, outer in LADDER:
            less, more = self._seconds(inner), self._seconds(outer)
            if not fits(less, more):
                raise ValueError(
                    f"{_told(inner, less)} does not fit in {_told(outer, more)}:"
                    " lower the first or raise the second."
                )
        return self

    def _seconds(self, parts: Parts) -> float:
        return sum(getattr(self, p) if isinstance(p, str) else p for p in parts)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        parts = parts_of(values["database_url"]) if values.get("database_url") else {}
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
        sslmode = _default_sslmode(values["database_host"])
        return {"database_sslmode": sslmode} | values


def _default_sslmode(host: str) -> str:
    return "disable" if host in LOOPBACK else "verify-full"


def _told(parts: Parts, total: float) -> str:
    names = [p.upper() if isinstance(p, str) else f"{p} s" for p in parts]
    return " + ".join(names) + (f" = {total:g} s" if names != [f"{total:g} s"] else "")
