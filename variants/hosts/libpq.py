"""Connect to the host that is the primary, of several that may be it: by libpq."""

from dataclasses import replace
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from ..config.limits import Limits
from ..config.server import Server
from ..engine.driver import connect_args

LEAST_SECONDS = 2  # of libpq's connect_timeout, which is in whole seconds


def connect_to_primary(engine: AsyncEngine, server: Server, limits: Limits) -> None:
    """Try the hosts in turn, and first the one that was the primary last.

    A single host is taken as it is: its name moves along with the primary.
    """
    hosts = [server, *server.others]
    # The time limit of a host is libpq's; together they have that of the checkout.
    in_all = replace(limits, connect_timeout_seconds=limits.acquire_timeout_seconds)
    options = connect_args(server, in_all) | {
        "connect_timeout": max(LEAST_SECONDS, round(limits.connect_timeout_seconds)),
        "target_session_attrs": "primary",
    }

    def connect(
        dialect: Any, entry: ConnectionPoolEntry, args: Any, parameters: dict[str, Any]
    ) -> Any:
        first = hosts[0]
        where = {
            "host": ",".join(each.host for each in hosts),
            "port": ",".join(str(each.port) for each in hosts),
        }
        try:
            connection = dialect.connect(*args, **(parameters | options | where))
        except dialect.loaded_dbapi.Error:
            if hosts[0] is first:  # it may have used up the time
                hosts.append(hosts.pop(0))
            raise
        info = connection.driver_connection.info
        hosts.sort(key=lambda each: (each.host, each.port) != (info.host, info.port))
        entry.info["host"] = hosts[0].name
        return connection

    if server.others:
        event.listen(engine.sync_engine, "do_connect", connect)
