"""What aiomysql must be told, and how it is asked and cut."""

from typing import TYPE_CHECKING, Any

from aiomysql import Connection, OperationalError  # type: ignore[import-untyped]
from pymysql.constants import CLIENT, CR  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine

from . import dialect
from .environment import require
from .startup import startup_args
from .watch import Watch, bounded

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DRIVER = "aiomysql"

require(Connection, "_connect", "_request_authentication")


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "async_creator_fn": bounded(
            _connect, settings, fileno=fileno, failure=_failure
        ),
        "autocommit": True,
        "charset": "utf8mb4",
        "program_name": __name__.partition(".")[0],
        "ssl": settings.ssl_context(),
        **startup_args(settings),
    }


def prepare(engine: AsyncEngine, settings: "DatabaseSettings") -> None:
    """What every connection of the pool needs."""
    dialect.prepare(engine)
    Watch(engine, settings, ping=_ping, fileno=fileno)


class _Connection(dialect.ToItsEnd, Connection):  # type: ignore[misc]
    """Goes no further when a server, or who poses as one, offers no encryption.

    aiomysql would log in without it, and send the password if it is asked to.
    """

    async def _request_authentication(self) -> None:
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            raise OperationalError(
                CR.CR_SSL_CONNECTION_ERROR, "the server offers no encryption"
            )
        await super()._request_authentication()


async def _connect(
    *args: Any, statements: tuple[str, ...], **kwargs: Any
) -> Connection:
    connection = _Connection(*args, **kwargs)
    try:
        await connection._connect()
        for statement in statements:
            await connection.query(statement)
    except BaseException:
        connection.close()  # aiomysql leaves it open when the time is up
        raise
    connection.is_connected = True
    return connection


def _failure(message: str) -> Any:
    return OperationalError(CR.CR_CONN_HOST_ERROR, message)


async def _ping(connection: Any) -> None:
    await connection.ping(reconnect=False)


def fileno(connection: Any) -> int:
    return int(connection._writer.transport.get_extra_info("socket").fileno())
