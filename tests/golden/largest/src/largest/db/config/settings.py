"""DATABASE_* variables: the server, the connection pool, timeouts."""

import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from getpass import getuser
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    FilePath,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    field_validator,
    model_validator,
)

from ..budget import EXPORTS_AT_ONCE, MAX_OVERFLOW, POOL_SIZE
from .backend import DEFAULT_PORT
from .credentials import Credentials
from .limits import Limits
from .server import Server, is_local, is_socket
from .timeouts import check_order
from .url import EXAMPLE, is_host, parse_url

# 0 would mean: for ever.
Seconds = Annotated[float, Field(ge=0.01, le=86_400)]


class ConnectionSettings(Credentials):
    # Set by features.py: what add-ons do to a new engine, and the router of reads.
    hooks: ClassVar[Sequence[Any]] = ()
    open_router: ClassVar[Callable[..., Any]]

    # One URL, or its parts.
    database_url: SecretStr | None = None
    # A name, an address, or the path of a local socket.
    database_host: str
    database_port: int = Field(default=DEFAULT_PORT, ge=1, le=65535)
    database_user: str
    database_name: str

    # In the words of libpq. Default: verify-full; on this machine: disable.
    database_sslmode: Literal["disable", "require", "verify-ca", "verify-full"]
    database_sslrootcert: FilePath | None = None

    # Connections of one process, as a sum; budget.py has the arithmetic.
    database_pool_size: PositiveInt = POOL_SIZE
    database_max_overflow: NonNegativeInt = MAX_OVERFLOW

    # Queue, validation and connect together: beyond that the pool rejects a checkout.
    database_acquire_timeout_seconds: Seconds = 3
    database_connect_timeout_seconds: Seconds = 2
    # The first two are limits of the server. After the last one the watchdog closes
    # the connection. timeouts.py says how they relate.
    database_lock_timeout_seconds: Seconds = 2
    database_statement_timeout_seconds: Seconds = 5
    database_client_timeout_seconds: Seconds = 6
    database_idle_in_transaction_timeout_seconds: Seconds = 10

    # At start: do the connections of all processes fit in what the server gives?
    # `refuse` ends a start where they do not.
    database_budget_check: Literal["warn", "off", "refuse"] = "warn"

    # An export in all, at the pace of its reader.
    database_export_timeout_seconds: Seconds = 300
    # Say in the warning about a possible leak which lines hold the connection.
    database_leak_trace: bool = False

    @property
    def limits(self) -> Limits:
        names = [field.name for field in fields(Limits)]
        return Limits(**{name: getattr(self, f"database_{name}") for name in names})

    @property
    def server(self) -> Server:
        return Server(
            self.database_host,
            self.database_port,
            self.database_user,
            self.database_name,
            self.database_sslmode,
            self.database_sslrootcert,
            self.password,
            self.failover_servers,
        )

    @property
    def failover_servers(self) -> tuple[Server, ...]:
        """Servers of which one may be the primary instead."""
        return ()

    def server_at(
        self, url: SecretStr, variable: str, port: int = DEFAULT_PORT
    ) -> Server:
        """The server of another URL. User, password, database and certificate are as
        here unless the URL has them, and the port is this one. SystemExit names the
        variable.
        """
        own = ConnectionSettings
        parts = parse_url(url, variable)
        if "database_host" not in parts:
            raise ValueError(f"{variable} is without a host: write {EXAMPLE}.")
        values = {name: getattr(self, name) for name in own.model_fields}
        values |= {"database_url": None, "database_port": port}
        # The other host may have another default, and a socket has no other mode.
        is_default = self.database_sslmode == _default_sslmode(self.database_host)
        if is_default or is_socket(parts["database_host"]):
            del values["database_sslmode"]
        other = own.load(**values | parts)
        # The file that has the password.
        origin = variable if "database_password" in parts else "DATABASE_URL"
        return replace(other.server, password=partial(other.password, origin, url))

    def direct(self) -> Server:
        """The server itself, for migrations: nothing is in between."""
        return self.server

    @property
    def connections(self) -> int:
        """How many connections one process may open, to one server."""
        return self.database_pool_size + self.database_max_overflow

    @property
    def connections_of_workers(self) -> int:
        """How many connections background workers may open, in all."""
        return 0

    @property
    def exports_at_once(self) -> int:
        return max(1, min(self.database_pool_size // 4, EXPORTS_AT_ONCE))

    @field_validator("database_host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not is_host(host):
            raise ValueError(
                "write one name, address, or path of a local socket, without a port;"
                " several hosts need the answer with_replicas"
            )
        return host

    @field_validator("database_sslrootcert")
    @classmethod
    def _check_certificate(cls, path: FilePath | None) -> FilePath | None:
        try:
            if path:  # to load those of this system takes long
                ssl.create_default_context(cafile=path)
        except ssl.SSLError:
            raise ValueError(f"there is no certificate in {path}") from None
        return path

    @model_validator(mode="after")
    def _check_encryption(self) -> Self:
        if is_socket(self.database_host) and self.database_sslmode != "disable":
            raise ValueError(
                f"DATABASE_SSLMODE={self.database_sslmode} asks for encryption, which a"
                " local socket has not: remove it, or name a host."
            )
        return self

    @model_validator(mode="after")
    def _check_timeouts(self) -> Self:
        check_order(vars(self))
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
        url = values.get("database_url")
        parts = parse_url(url) if url else {}
        if doubled := parts.keys() & values.keys():
            raise ValueError(
                f"DATABASE_URL and {', '.join(sorted(doubled)).upper()} say the same:"
                " remove one of them."
            )
        values = parts | values
        if is_socket(values.get("database_host") or ""):
            with suppress(KeyError, OSError):  # a user id without a name
                values = {"database_user": getuser()} | values  # as libpq does
        for name in ("database_host", "database_user", "database_name"):
            if not values.get(name):
                raise ValueError(
                    f"{name.upper()} is missing in DATABASE_URL: write {EXAMPLE}."
                    if url
                    else f"{name.upper()} is missing: set DATABASE_URL, or"
                    " DATABASE_HOST, DATABASE_USER and DATABASE_NAME."
                )
        sslmode = _default_sslmode(values["database_host"])
        return {"database_sslmode": sslmode} | values


def _default_sslmode(host: str) -> str:
    return "disable" if is_local(host) else "verify-full"
