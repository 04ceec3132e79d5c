"""What asyncpg must be told: the connection, its limits, the write transaction."""

import socket
import ssl
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Connection, ExceptionContext, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DIALECT = "postgresql"
DRIVER = "asyncpg"
SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432

KEEPALIVE = {
    "TCP_KEEPIDLE": 60,  # seconds
    "TCP_KEEPINTVL": 10,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,  # milliseconds
}

# SQLSTATE, or the first characters of it, and what it means for the caller.
FAULTS = {
    "08": "unavailable",  # connection failed
    "23": "conflict",  # unique, foreign key, not null, check, exclusion
    "25006": "unavailable",  # read only: the primary has moved
    "28": "unavailable",  # login refused
    "3D000": "unavailable",  # no such database
    "40": "busy",  # deadlock or serialization failure, rolled back
    "53": "busy",  # too many connections, out of memory or disk
    "55P03": "busy",  # lock not available
    "57014": "timeout",  # statement_timeout
    "57P": "unavailable",  # the server is stopping or starting
}


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "async_creator_fn": _connect,
        "ssl": _ssl_context(settings),
        "timeout": settings.database_connect_timeout_seconds,
        # The server's own limit comes first and leaves the connection clean; this
        # one ends the wait for a server that no longer answers.
        "command_timeout": settings.database_client_timeout_seconds,
        "server_settings": {
            "application_name": __name__.partition(".")[0],
            "lock_timeout": _milliseconds(settings.database_lock_timeout_seconds),
            "statement_timeout": _milliseconds(
                settings.database_statement_timeout_seconds
            ),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.database_idle_in_transaction_timeout_seconds
            ),
        },
    }


def prepare(engine: AsyncEngine) -> None:
    """What every connection of the pool needs."""
    event.listen(engine.sync_engine, "connect", _keep_alive)
    event.listen(engine.sync_engine, "handle_error", _name_silence)


def transactional(engine: AsyncEngine) -> AsyncEngine:
    """The same pool, with a transaction around what is executed.

    PostgreSQL answers the COMMIT of a transaction in which a statement has failed
    with a ROLLBACK, and nobody looks: a handler that swallows the error would lose
    its other writes behind a 200. Hence the listeners.
    """
    writes = engine.execution_options(isolation_level="READ COMMITTED")
    event.listen(writes.sync_engine, "begin", _mark_whole)
    event.listen(writes.sync_engine, "rollback_savepoint", _mark_whole)
    event.listen(writes.sync_engine, "handle_error", _mark_failed)
    event.listen(writes.sync_engine, "commit", _refuse_failed)
    return writes


def fault(error: DBAPIError) -> str | None:
    """Name the fault by its SQLSTATE; the class differs from driver to driver."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return next((FAULTS[code] for code in FAULTS if sqlstate.startswith(code)), None)


async def _connect(*args: Any, **kwargs: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(*args, **kwargs)
    except OSError as error:
        # SQLAlchemy wraps the driver's own errors only: a bare ConnectionRefusedError
        # could come from anywhere in the service, this one is the database's.
        reason = str(error) or "timeout"
        raise asyncpg.ClientCannotConnectError(f"cannot connect: {reason}") from error


def _mark_whole(connection: Connection, *_: Any) -> None:
    connection.info.pop("failed", None)


def _mark_failed(context: ExceptionContext) -> None:
    if context.connection is not None:
        context.connection.info["failed"] = True


def _refuse_failed(connection: Connection) -> None:
    if connection.info.get("failed"):
        raise InvalidRequestError(
            "A statement has failed, so nothing can be committed: let the error rise,"
            " or try the statement in `async with session.begin_nested()`."
        )


def _name_silence(context: ExceptionContext) -> None:
    """Call it a lost connection when asyncpg's command_timeout ends the wait.

    asyncpg lets a bare TimeoutError out, which could come from anywhere.
    """
    if isinstance(context.original_exception, TimeoutError):
        raise DBAPIError(
            context.statement,
            None,
            asyncpg.ConnectionFailureError("no answer in time"),
            hide_parameters=True,
            connection_invalidated=True,
        )


def _keep_alive(connection: Any, _: ConnectionPoolEntry) -> None:
    """Let the kernel probe an idle connection, which asyncpg never asks it to.

    Load balancers and firewalls forget a silent one after 240 to 600 s, and tell
    nobody. First probe after 60 s, dead after 3 at 10 s; unanswered data after 10 s.
    """
    transport = connection.driver_connection._transport
    tcp = transport.get_extra_info("socket")
    if tcp.family == socket.AF_UNIX:
        return
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if option := getattr(socket, name, None):  # not every platform has them all
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)


def _ssl_context(settings: "DatabaseSettings") -> ssl.SSLContext | bool:
    """Encryption exactly as DATABASE_SSLMODE says, or an error: never less."""
    mode = settings.database_sslmode
    if mode == "disable":
        return False
    context = ssl.create_default_context(cafile=settings.database_sslrootcert)
    context.check_hostname = mode == "verify-full"
    if mode == "require" and not settings.database_sslrootcert:
        context.verify_mode = ssl.CERT_NONE
    return context


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
