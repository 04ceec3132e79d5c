"""DATABASE_REPLICA_* variables, and the failover hosts of DATABASE_URL."""

import re
from collections import Counter
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, model_validator

from ..config.backend import DEFAULT_PORT, SCHEMES
from ..config.server import Server, is_local, is_socket
from ..config.settings import ConnectionSettings
from ..config.url import parse_url

REPLICAS = "DATABASE_REPLICA_URLS"
FAILOVER = "A host of DATABASE_URL or DATABASE_FAILOVER_HOSTS"
# A client keeps its watermark for so long. A replica that lags more must not be read
# from: the writes before a read might be missing.
READ_AFTER_SECONDS = 60
MaxLag = Annotated[float, Field(ge=0.5, le=READ_AFTER_SECONDS)]
HOSTS = re.compile(r"([^:]+://(?:[^@/?#]*@)?)([^@/?#]*)([/?].*)?")


class ReplicaSettings(ConnectionSettings):
    # Separated by commas; the README says what an endpoint may be.
    database_replica_urls: SecretStr | None = None
    # A replica that lags more is banned for a while.
    database_replica_max_lag_seconds: MaxLag = 5
    # The other hosts of DATABASE_URL: host:port,host:port.
    database_failover_hosts: str | None = None

    @property
    def replicas(self) -> dict[str, Server]:
        """By the name in logs and metrics. Behind a pooler they may share an address:
        then the name has the database as well.
        """
        urls = self.database_replica_urls
        servers = [
            self.server_at(SecretStr(url), REPLICAS, self.database_port)
            for url in (urls.get_secret_value() if urls else "").split(",")
            if url.strip()
        ]
        shared = Counter(each.name for each in servers)
        return {
            f"{each.name}/{each.database}" if shared[each.name] > 1 else each.name: each
            for each in servers
        }

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
        # A pooler has those of all replicas behind it.
        pool = self.database_pool_size + self.database_max_overflow
        shared = Counter(each.name for each in self.replicas.values())
        return pool + max(shared.values(), default=0) * (pool + 1)

    @model_validator(mode="after")
    def _check_servers(self) -> Self:
        _ = self.replicas  # SystemExit for a wrong URL
        hosts = (self.server, *self.failover_servers)
        if len(hosts) > 1 and any(is_socket(each.host) for each in hosts):
            raise ValueError(
                "DATABASE_URL names several hosts, and a local socket: a socket leads"
                " to one server, so name it alone."
            )
        if len({is_local(each.host) for each in hosts}) > 1:
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
        if name == "database_url":
            found = HOSTS.fullmatch(hosts.strip())
            if not found:
                return values  # parse_url() says what is wrong
            before, hosts, after = found.groups(default="")
        first, comma, others = hosts.partition(",")
        if not comma:
            return values
        return values | {
            name: f"{before}{first}{after}",
            "database_failover_hosts": others,
        }


def _address(host: str) -> dict[str, Any]:
    """Of `name:port`. A name without a port has the default one."""
    parts = parse_url(f"{SCHEMES[0]}://{host.strip()}", FAILOVER)
    if parts.keys() - {"database_host", "database_port"} or not parts:
        raise ValueError(f"{FAILOVER} is not a host: write name:port.")
    port = int(parts.get("database_port", DEFAULT_PORT))
    return parts | {"database_port": port, "database_failover_hosts": None}
