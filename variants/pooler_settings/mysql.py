"""DATABASE_DIRECT_URL: the server itself, around the pooler."""

from typing import Self

from pydantic import SecretStr, model_validator

from ..config.server import Server
from ..config.settings import ConnectionSettings

DIRECT = "DATABASE_DIRECT_URL"


class PoolerSettings(ConnectionSettings):
    # For what needs a session of the server to itself.
    database_direct_url: SecretStr | None = None

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
        return 0

    @model_validator(mode="after")
    def _check_direct_url(self) -> Self:
        if self.database_direct_url:
            self.direct()
        return self
