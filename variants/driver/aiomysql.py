"""aiomysql: how to connect, ping, and reach the socket."""

from typing import Any

from aiomysql import Connection, OperationalError  # type: ignore[import-untyped]
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.mysql.aiomysql import MySQLDialect_aiomysql

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

DRIVERNAME = "mysql+aiomysql_bounded"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")
# Of the protocol: a capability of the server, and error numbers of a client.
SSL_CAPABILITY = 1 << 11
HOST_ERROR, GONE_ERROR, SSL_ERROR = 2003, 2006, 2026
require(Connection, "_connect", "_request_authentication", "escape")


class Dialect(
    SingleUpserts,
    BoundedDialect,
    IsolationLevels,
    RestoredLevels,
    MySQLDialect_aiomysql,
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


class _Connection(CheckedParameters, UncancelledStatements, Connection):  # type: ignore[misc]
    """Refuses a server, or an impostor, that offers no encryption.

    aiomysql would log in without it, and send the password if it is asked to.
    """

    def escape(self, obj: Any) -> Any:
        # aiomysql would call a function that PyMySQL 1.2 has no more.
        if isinstance(obj, (bytes, bytearray, memoryview)):
            return f"_binary X'{obj.hex()}'"
        return super().escape(obj)

    async def _request_authentication(self) -> None:
        if self._ssl_context and not self.server_capabilities & SSL_CAPABILITY:
            raise OperationalError(SSL_ERROR, "the server offers no encryption")
        await super()._request_authentication()

    def _write_bytes(self, data: bytes) -> None:
        try:
            super()._write_bytes(data)
        except RuntimeError as error:  # of uvloop, on a connection that is closed
            self.close()
            raise OperationalError(GONE_ERROR, str(error)) from error


async def _connect(
    *args: Any, password: str | None, statements: tuple[str, ...], **kwargs: Any
) -> Connection:
    connection = _Connection(*args, password=as_latin1(password), **kwargs)
    try:
        await connection._connect()
        for statement in statements:
            await connection.query(statement)
    except BaseException:
        connection.close()  # aiomysql leaves it open after a timeout
        raise
    connection.is_connected = True
    return connection


def _failure(message: str) -> Any:
    return OperationalError(HOST_ERROR, message)


async def ping(connection: Any) -> None:
    await connection.ping(reconnect=False)


def fileno(connection: Any) -> int:
    return int(connection._writer.transport.get_extra_info("socket").fileno())
