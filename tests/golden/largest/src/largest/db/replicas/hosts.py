"""Connect to the host that is the primary, of several that may be it."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from ..config.limits import Limits
from ..config.server import Server
from ..engine.dialect import PRIMARY_QUERY
from ..engine.driver import connect_args
from .failover import fetch_one
from .position import standby_error


def connect_to_primary(engine: AsyncEngine, server: Server, limits: Limits) -> None:
    """Try the hosts in turn, and first the one that was the primary last.

    A single host is taken as it is: its name moves along with the primary.
    """
    hosts = (server, *server.others)
    first = 0

    def connect(
        dialect: Any, entry: ConnectionPoolEntry, args: Any, parameters: dict[str, Any]
    ) -> Any:
        nonlocal first
        failures: list[Exception] = []
        for _ in hosts:
            tried = first
            host = hosts[tried]
            entry.info["host"] = host.name
            where = {"host": host.host, "port": host.port}
            where |= connect_args(host, limits)
            try:
                connection = dialect.connect(*args, **(parameters | where))
                if _is_primary(dialect, connection):
                    return connection
                text = f"{host.name} is not the primary"
                failures.append(standby_error(dialect.loaded_dbapi, text))
            except dialect.loaded_dbapi.Error as error:
                failures.append(error)
            if first == tried:  # no other connect has found the primary meanwhile
                first = (tried + 1) % len(hosts)
        raise failures[-1]

    if server.others:
        event.listen(engine.sync_engine, "do_connect", connect)


def _is_primary(dialect: Any, connection: Any) -> bool:
    """A connection that is not taken is closed, also if its caller is cancelled."""
    is_primary = False
    try:
        (is_primary,) = fetch_one(connection, PRIMARY_QUERY)
        connection.rollback()
    finally:
        if not is_primary:
            dialect.do_terminate(connection)
    return bool(is_primary)
