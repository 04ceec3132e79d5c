"""asyncmy: how to connect, ping, and reach the socket."""

import logging
from typing import Any

from asyncmy.connection import Connection, _MySQLProtocol  # type: ignore[attr-defined]
from asyncmy.constants import CR
from asyncmy.errors import OperationalError
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.asyncmy import MySQLDialect_asyncmy

from ..config.environment import require
from ..config.limits import Limits
from ..config.server import Server, is_socket
from .dialect import (
    RestoredLevels,
    SingleUpserts,
    UncancelledStatements,
    as_latin1,
    is_idle,
)
from .session_init import session_options
from .types import CheckedParameters
from .validation import IsolationLevels, connect_with_timeout
from .watchdog import BoundedDialect

DRIVERNAME = "mysql+asyncmy_bounded"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")
require(_MySQLProtocol, "buffer_updated", "wait_for_data")
# The driver logs the warnings of the server, which quote values.
logging.getLogger("asyncmy").setLevel(logging.ERROR)
# At most so much of a result is buffered here; the rest stays in the server.
BUFFER_BYTES = 256 * 1024


class Dialect(
    SingleUpserts, BoundedDialect, IsolationLevels, RestoredLevels, MySQLDialect_asyncmy
):
    supports_statement_cache = True

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return is_idle(dbapi_conn)


def connect_args(server: Server, limits: Limits) -> dict[str, Any]:
    return {
        "async_creator_fn": connect_with_timeout(
            _connect,
            server.password,
            limits.connect_timeout_seconds,
            fileno=fileno,
            failure=_failure,
        ),
        "autocommit": True,
        "charset": "utf8mb4",
        "program_name": __name__.partition(".")[0],
        "ssl": server.ssl_context(),
        "unix_socket": server.host if is_socket(server.host) else None,
        **session_options(limits),
    }


class _Connection(CheckedParameters, UncancelledStatements, Connection):
    pass


class _BoundedProtocol(_MySQLProtocol):  # type: ignore[misc]
    """Stops reading while a result waits; asyncmy's own buffers all of it."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.length - self.pos > BUFFER_BYTES:
            self.transport.pause_reading()

    async def wait_for_data(self, need: int) -> None:
        if self.transport and not self.transport.is_reading():
            self.transport.resume_reading()
        await super().wait_for_data(need)


async def _connect(
    *args: Any, password: str | None, statements: tuple[str, ...], **kwargs: Any
) -> Any:
    login = {"password": as_latin1(password)}
    connection: Any = _Connection(*args, **kwargs, **login)  # type: ignore[no-untyped-call]
    try:
        await connection.connect()
        for statement in statements:
            await connection.query(statement)
    except BaseException as error:
        connection.close()
        if isinstance(error, RuntimeError):  # closed at once, as by a full server
            raise _failure(f"cannot connect: {error}") from error
        raise
    connection._proto = _BoundedProtocol(connection.loop)
    connection._proto.connection_made(connection._transport)
    connection._transport.set_protocol(connection._proto)
    connection.is_connected = True
    return connection


def _failure(message: str) -> Exception:
    return OperationalError(CR.CR_CONN_HOST_ERROR, message)


async def ping(connection: Any) -> None:
    await connection.ping(reconnect=False)


def fileno(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
