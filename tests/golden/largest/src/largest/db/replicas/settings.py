"""DATABASE_REPLICA_* variables, and the failover hosts of DATABASE_URL."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ..config.backend import DEFAULT_PORT, SCHEMES
from ..config.credentials import LOOPBACK
from ..config.server import Server
from ..config.settings import ConnectionSettings

REPLICAS = "DATABASE_REPLICA_URLS"
# A client keeps its watermark for so long. A replica that lags more must not be read
# from: the writes before a read might be missing.
READ_AFTER_SECONDS = 60
MaxLag = Annotated[float, Field(ge=0.5, le=READ_AFTER_SECONDS)]
HOSTS = re.compile(r"([^:]+://(?:[^@]*@)?)([^/?]*)(.*)")


class ReplicaSettings(ConnectionSettings):
    # Separated by commas; the README says what an endpoint may be.
    database_replica_urls: SecretStr | None = None
    # A replica that lags more is banned for a while.
    database_replica_max_lag_seconds: MaxLag = 5
    # The other hosts of DATABASE_URL: host:port,host:port.
    database_failover_hosts: str | None = None

    @property
    def replicas(self) -> list[Server]:
        urls = self.database_replica_urls
        return [
            self.server_at(SecretStr(url), REPLICAS)
            for url in (urls.get_secret_value() if urls else "").split(",")
            if url.strip()
        ]

    @property
    def failover_servers(self) -> tuple[Server, ...]:
        hosts = (self.database_failover_hosts or "").split(",")
        return tuple(
            self.model_copy(update=_address(host)).server
            for host in hosts
            if host.strip()
        )

    @property
    def connections(self) -> int:
        # A replica may become the primary, and an endpoint for replicas may lead to
        # it: one server then has both pools, and the connection of the health probe.
        pool = self.database_pool_size + self.database_max_overflow
        return 2 * pool + 1 if self.database_replica_urls else pool

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        _ = self.replicas  # SystemExit for a wrong URL
        hosts = (self.server, *self.failover_servers)
        if len({each.host in LOOPBACK for each in hosts}) > 1:
            raise ValueError(
                "DATABASE_URL names this machine and others: all may become the"
                " primary, so encryption must be the same for all."
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _split_hosts(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Of `a:5432,b:5433` the first is the host, the others are failover hosts."""
        before = after = ""
        name = "database_url" if values.get("database_url") else "database_host"
        hosts = str(values.get(name) or "")
        if found := HOSTS.fullmatch(hosts.strip()):
            before, hosts, after = found.groups()
        first, comma, others = hosts.partition(",")
        if not comma:
            return values
        return values | {
            name: f"{before}{first}{after}",
            "database_failover_hosts": others,
        }


def _address(host: str) -> dict[str, Any]:
    try:
        url = make_url(f"{SCHEMES[0]}://{host.strip()}")
    except (ArgumentError, ValueError):
        raise ValueError(f"{host} is no host: write name:port.") from None
    return {
        "database_host": url.host,
        "database_port": url.port or DEFAULT_PORT,
        "database_failover_hosts": None,
    }
