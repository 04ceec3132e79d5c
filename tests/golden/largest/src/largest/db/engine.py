"""The engine: of several hosts it follows the one that is the primary."""

import asyncio
import logging
from functools import partial
from time import monotonic
from typing import Any

from prometheus_client import Gauge
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

from . import primary_engine
from .connect import connect_args, fileno
from .deadline import seconds_left
from .primary_engine import ENGINES, forget_connections
from .role import IS_PRIMARY, read_only_error
from .settings import DatabaseSettings
from .sockets import address_of, cut
from .watch import IDLE_SECONDS, PING_SECONDS, retire, retired_at

__all__ = [
    "ENGINES",
    "ask",
    "create_engine",
    "create_unpooled_engine",
    "forget_connections",
]

PRIMARY = Gauge(
    "database_primary",
    "1 where the newest connection of a worker to the primary leads.",
    ["host"],
    multiprocess_mode="livemax",
)

logger = logging.getLogger(__name__)


def create_engine(settings: DatabaseSettings, name: str = "primary") -> AsyncEngine:
    """A pool of connections to the primary; of a replica if it has another name."""
    engine = primary_engine.create_engine(settings, name)
    if name == "primary":
        event.listen(engine.sync_engine, "connect", _Primary(engine).on_connect)
        event.listen(engine.sync_engine, "checkout", partial(_leave_standby, engine))
    return _follow_primary(engine, settings)


def create_unpooled_engine(settings: DatabaseSettings) -> AsyncEngine:
    return _follow_primary(primary_engine.create_unpooled_engine(settings), settings)


def _follow_primary(engine: AsyncEngine, settings: DatabaseSettings) -> AsyncEngine:
    """Connect to the host that is the primary, and first to where it was last seen.

    A single host is taken as it is: its name moves along with the primary.
    """
    hosts = settings.hosts()
    begin_at = 0

    def connect(
        dialect: Any, entry: ConnectionPoolEntry, args: Any, parameters: dict[str, Any]
    ) -> Any:
        nonlocal begin_at
        failures: list[Exception] = []
        for _ in hosts:
            tried = begin_at
            host = hosts[tried]
            where = {"host": host.database_host, "port": host.database_port}
            entry.info["host"] = f"{host.database_host}:{host.database_port}"
            try:
                connection = dialect.connect(
                    *args, **(parameters | connect_args(host) | where)
                )
                (is_primary,) = ask(connection, IS_PRIMARY)
                connection.rollback()
                if is_primary:
                    return connection
                connection.close()
                standby = f"{entry.info['host']} is not the primary"
                failures.append(read_only_error(dialect.loaded_dbapi, standby))
            except dialect.loaded_dbapi.Error as error:
                failures.append(error)
            if begin_at == tried:  # nobody has found it meanwhile
                begin_at = (tried + 1) % len(hosts)
        raise failures[-1]

    if len(hosts) > 1:
        event.listen(engine.sync_engine, "do_connect", connect)
    return engine


def ask(connection: Any, statement: str) -> Any:
    """The first row, in time: nobody looks after a connection before its first use."""
    loop, seconds = asyncio.get_running_loop(), seconds_left(PING_SECONDS)
    timer = loop.call_later(seconds, cut, fileno, connection.driver_connection)
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        row = cursor.fetchone()
        cursor.close()
        return row
    finally:
        timer.cancel()


def _leave_standby(
    engine: AsyncEngine, connection: Any, entry: ConnectionPoolEntry, _: Any
) -> None:
    """A primary that has become a standby answers reads, with what is old by now.

    Whoever writes to it is told; a connection that was idle is asked.
    """
    if monotonic() - entry.info["used_at"] < IDLE_SECONDS:
        return
    try:
        (is_primary,) = ask(connection, IS_PRIMARY)
    except Exception as error:  # lost since it was validated
        raise DisconnectionError("validation") from error
    if not is_primary:
        retire(engine, f"{address_of(fileno, connection)} is a standby")
        raise DisconnectionError("moved")


class _Primary:
    """Where the newest connection of the pool leads: logged when it has moved."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._address = ""
        self._since = monotonic()

    def on_connect(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        # Of several hosts the one that was taken; else what the name has led to.
        address = entry.info.get("host") or address_of(fileno, connection)
        # A name may stand for many servers, as that of a proxy does: then only what
        # follows on a retired pool is a move.
        is_move = "host" in entry.info or retired_at(self._engine) > self._since
        self._since = monotonic()
        if address == self._address:
            return
        if self._address:
            PRIMARY.labels(self._address).set(0)
            if is_move:
                logger.warning("primary is %s now, was %s", address, self._address)
        PRIMARY.labels(address).set(1)
        self._address = address
