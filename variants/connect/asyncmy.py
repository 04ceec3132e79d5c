"""What asyncmy must be told, and how it is asked and cut."""

from typing import TYPE_CHECKING, Any

from asyncmy.connection import Connection, _MySQLProtocol  # type: ignore[attr-defined]
from asyncmy.constants import CR
from asyncmy.errors import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from . import dialect
from .environment import require
from .startup import startup_args
from .watch import Watch, bounded

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DRIVER = "asyncmy"
# Of the rows that a reader has not taken yet, what may wait here. The rest waits in
# the server.
AHEAD_BYTES = 256 * 1024

require(_MySQLProtocol, "buffer_updated", "wait_for_data")


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


class _Connection(dialect.ToItsEnd, Connection):
    pass


class _Paced(_MySQLProtocol):  # type: ignore[misc]
    """asyncmy's own reads on, however much of a result waits to be taken."""

    def buffer_updated(self, nbytes: int) -> None:
        super().buffer_updated(nbytes)
        if self.length - self.pos > AHEAD_BYTES:
            self.transport.pause_reading()

    async def wait_for_data(self, need: int) -> None:
        if self.transport and not self.transport.is_reading():
            self.transport.resume_reading()
        await super().wait_for_data(need)


async def _connect(*args: Any, statements: tuple[str, ...], **kwargs: Any) -> Any:
    connection: Any = _Connection(*args, **kwargs)  # type: ignore[no-untyped-call]
    try:
        await connection.connect()
    except RuntimeError as error:  # closed at once, as by a server that is full
        raise _failure(f"cannot connect: {error}") from error
    for statement in statements:
        await connection.query(statement)
    connection._proto = _Paced(connection.loop)
    connection._proto.connection_made(connection._transport)
    connection._transport.set_protocol(connection._proto)
    connection.is_connected = True
    return connection


def _failure(message: str) -> Exception:
    return OperationalError(CR.CR_CONN_HOST_ERROR, message)


async def _ping(connection: Any) -> None:
    await connection.ping(reconnect=False)


def fileno(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
