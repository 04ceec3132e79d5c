"""Failover: when a replica is promoted, connections to the old primary are replaced."""

import asyncio
import logging
from functools import partial
from time import monotonic
from typing import Any

from prometheus_client import Gauge
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from ..config.limits import PING_SECONDS, Limits
from ..config.server import Server
from ..engine.dialect import PRIMARY_QUERY
from ..engine.driver import fileno
from ..engine.network import peer_address, shut_down
from ..engine.timing import remaining
from ..engine.validation import check_idle, retire, retired_at

PRIMARY = Gauge(
    "database_primary",
    "1 for the server that a process takes for the primary.",
    ["host"],
    multiprocess_mode="livemax",
)

logger = logging.getLogger(__name__)


def watch_primary(engine: AsyncEngine, _: Server, __: Limits) -> None:
    """Log each failover; at the checkout of an idle connection, reject a standby."""
    if not isinstance(engine.sync_engine.pool, NullPool):
        event.listen(engine.sync_engine, "connect", _Primary(engine).on_connect)
        check_idle(engine, partial(_reject_standby, engine))


def fetch_one(connection: Any, statement: str) -> Any:
    """The first row. The watchdog does not know a connection before its first use:
    hence a timer.
    """
    loop, seconds = asyncio.get_running_loop(), remaining(PING_SECONDS)
    timer = loop.call_later(seconds, shut_down, fileno, connection.driver_connection)
    try:
        cursor = connection.cursor()
        cursor.execute(statement)
        row = cursor.fetchone()
        cursor.close()
        return row
    finally:
        timer.cancel()


def _reject_standby(engine: AsyncEngine, connection: Any) -> None:
    """A primary that was demoted answers reads, with old data; only a write fails."""
    try:
        (is_primary,) = fetch_one(connection, PRIMARY_QUERY)
    except Exception as error:  # lost since it was validated
        raise DisconnectionError("validation") from error
    if not is_primary:
        address = peer_address(fileno, connection.driver_connection)
        retire(engine, f"{address} is a standby")
        raise DisconnectionError("moved")


class _Primary:
    """The server that one pool takes for the primary: logged when it has changed."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._address = ""
        self._since = monotonic()

    def on_connect(self, connection: Any, entry: ConnectionPoolEntry) -> None:
        # Of several hosts the one that is the primary; else where the name leads.
        address = entry.info.get("host") or peer_address(
            fileno, connection.driver_connection
        )
        # A name may lead to many servers, as that of a proxy does: then only the first
        # connect after the pool was retired is a failover.
        is_failover = "host" in entry.info or retired_at(self._engine) > self._since
        self._since = monotonic()
        if address == self._address or (self._address and not is_failover):
            return
        if self._address:
            PRIMARY.labels(self._address).set(0)
            facts = {"primary": address, "was": self._address}
            text = "primary is %(primary)s now, was %(was)s"
            logger.warning(text, facts, extra=facts)
        PRIMARY.labels(address).set(1)
        self._address = address
