"""DATABASE_* variables of the pooler, and DATABASE_DIRECT_URL to go around it."""

from typing import Any, Self

from pydantic import SecretStr, model_validator

from .budget import FLEET_PROCESSES, POOLER_CONNECTIONS
from .server_settings import DatabaseSettings as ServerSettings
from .url import parts_of

DIRECT = "DATABASE_DIRECT_URL"


class DatabaseSettings(ServerSettings):
    # Around the pooler: for what needs a session of the server to itself.
    database_direct_url: SecretStr | None = None

    @model_validator(mode="after")
    def _check_url(self) -> Self:
        if self.database_direct_url:
            parts_of(self.database_direct_url, DIRECT)
        return self

    @property
    def exports_at_once(self) -> int:
        # Each holds one of the pooler's few to its end: a quarter of those, for all.
        share = POOLER_CONNECTIONS // 4 // FLEET_PROCESSES
        return max(1, min(share, super().exports_at_once))

    def direct(self) -> Any:
        """Where migrations go: their lock belongs to a session, which nobody shares."""
        if not self.database_direct_url:
            raise SystemExit(
                f"{DIRECT} is missing: set it to the URL of the server itself. The"
                " pooler may give every transaction another session."
            )
        return self.at(self.database_direct_url, DIRECT)
