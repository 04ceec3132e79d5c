"""A database server: its address, how to log in, and how to encrypt."""

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_socket(host: str) -> bool:
    return host.startswith("/")


def is_local(host: str) -> bool:
    """The traffic of this machine to itself cannot be read by another."""
    return host in LOOPBACK or is_socket(host)


@dataclass(frozen=True)
class Server:
    host: str  # or the path of a local socket
    port: int
    user: str
    database: str
    sslmode: str  # in the words of libpq
    sslrootcert: Path | None
    # Asked before each connect, since a token expires.
    password: Callable[[], Awaitable[str | None]]
    # Of these one may be the primary instead.
    others: tuple["Server", ...] = ()

    @property
    def name(self) -> str:
        return f"{self.host}:{self.port}"

    def url(self, drivername: str) -> URL:
        """The URL for SQLAlchemy, without the password."""
        return URL.create(
            drivername, self.user, None, self.host, self.port, self.database
        )

    def ssl_context(self) -> ssl.SSLContext | None:
        """Encryption exactly as DATABASE_SSLMODE says, or an error: never less."""
        if self.sslmode == "disable":
            return None
        context = ssl.create_default_context(cafile=self.sslrootcert)
        context.check_hostname = self.sslmode == "verify-full"
        if self.sslmode == "require" and not self.sslrootcert:
            context.verify_mode = ssl.CERT_NONE
        return context
