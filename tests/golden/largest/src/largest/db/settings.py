"""DATABASE_* variables of the primary, of the hosts that may be it, and of replicas."""

import re
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from .dialect import DEFAULT_PORT, SCHEMES
from .login import LOOPBACK
from .primary_settings import DatabaseSettings as PrimarySettings

REPLICAS = "DATABASE_REPLICA_URLS"
# For so long a client tells what it has written. A replica further behind than this
# must not be read from: "reads see the writes before them" would not hold.
READ_AFTER_SECONDS = 60
MaxLag = Annotated[float, Field(ge=0.5, le=READ_AFTER_SECONDS)]
HOSTS = re.compile(r"([^:]+://(?:[^@]*@)?)([^/?]*)(.*)")


class DatabaseSettings(PrimarySettings):
    # Commas in between, one for each; the README says what an endpoint may be.
    database_replica_urls: SecretStr | None = None
    # Whoever is further behind is not read from for a while.
    database_replica_max_lag_seconds: MaxLag = 5
    # Who may be the primary instead: host:port,host:port.
    database_failover_hosts: str | None = None

    @property
    def connections(self) -> int:
        # A replica may become the primary, and an endpoint for replicas may lead to
        # it: then it serves both pools, and the look of db/replica.py.
        pools = 2 if self.database_replica_urls else 1
        return pools * super().connections + pools - 1

    def replicas(self) -> "list[DatabaseSettings]":
        """The settings of each; its pool and limits are those of the primary."""
        urls = self.database_replica_urls
        return [
            self.at(url, REPLICAS)
            for url in (urls.get_secret_value() if urls else "").split(",")
            if url.strip()
        ]

    def hosts(self) -> list[Self]:
        """The settings of each server that may be the primary."""
        others = filter(None, (self.database_failover_hosts or "").split(","))
        return [self, *(self.model_copy(update=_address(other)) for other in others)]

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        self.replicas()
        if len({each.database_host in LOOPBACK for each in self.hosts()}) > 1:
            raise ValueError(
                "DATABASE_URL names this machine and others: all may become the"
                " primary, so encryption must be the same for all."
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _take_hosts_apart(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Of `a:5432,b:5433` the first is the host, as if there were no other."""
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
    return {"database_host": url.host, "database_port": url.port or DEFAULT_PORT}
