"""DATABASE_DIRECT_URL: the server itself, around the pooler; LISTEN uses it too."""

from typing import Self

from pydantic import NonNegativeInt, SecretStr, model_validator

from ..config.server import Server
from ..config.settings import ConnectionSettings

DIRECT = "DATABASE_DIRECT_URL"


class PoolerSettings(ConnectionSettings):
    # For what needs a session of the server to itself.
    database_direct_url: SecretStr | None = None
    # How many listen() a process runs at once: each is a connection to the server.
    database_listeners: NonNegativeInt = 0

    def direct(self) -> Server:
        """The server itself, for migrations: their lock belongs to a session.

        SystemExit if DATABASE_DIRECT_URL is missing.
        """
        if not self.database_direct_url:
            raise SystemExit(
                f"{DIRECT} is missing: set it to the URL of the server itself. The"
                " pooler may give every transaction another session."
            )
        return self.server_at(self.database_direct_url, DIRECT)

    @property
    def listeners(self) -> int:
        """Connections that a process keeps to the server itself."""
        return self.database_listeners

    @model_validator(mode="after")
    def _check_direct_url(self) -> Self:
        if self.database_direct_url:
            self.direct()
        return self
