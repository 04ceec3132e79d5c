"""What psycopg must be told, and how it is asked and cut."""

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.errors import FeatureNotSupported, SqlclientUnableToEstablishSqlconnection
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from .startup import startup_args
from .watch import Watch, bounded

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DRIVER = "psycopg"


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "async_creator_fn": bounded(
            _connect,
            settings,
            fileno=fileno,
            failure=SqlclientUnableToEstablishSqlconnection,
        ),
        "client_encoding": "utf8",
        "gssencmode": "disable",  # else libpq may ask a Kerberos server first
        **_encryption(settings),
        **startup_args(settings),
    }


def prepare(engine: AsyncEngine, settings: "DatabaseSettings") -> None:
    """What every connection of the pool needs."""
    Watch(engine, settings, ping=_ping, fileno=fileno)
    event.listen(engine.sync_engine, "handle_error", _drop_stale)


def _drop_stale(context: ExceptionContext) -> None:
    """A migration has changed a table behind the prepared statements of the pool.

    A connection would refuse them for as long as it lives: treat all like lost ones.
    The message is in the language of the server, the place in its source is not.
    """
    error = context.original_exception
    if isinstance(error, FeatureNotSupported):
        place = error.diag.source_function
        context.is_disconnect = place == "RevalidateCachedQuery"


class _ServerCursor(psycopg.AsyncServerCursor[Any]):
    """Ends with its connection, which a reader that leaves takes along: no warning,
    whichever of the two is gone first.
    """

    def __del__(self, *_: Any) -> None:
        pass


async def _connect(*args: Any, **kwargs: Any) -> psycopg.AsyncConnection[Any]:
    try:
        connection = await psycopg.AsyncConnection.connect(*args, **kwargs)
    except psycopg.OperationalError as error:
        # libpq tells no SQLSTATE when it cannot connect, only a text.
        raise SqlclientUnableToEstablishSqlconnection(str(error)) from error
    connection.server_cursor_factory = _ServerCursor
    return connection


def _encryption(settings: "DatabaseSettings") -> dict[str, str]:
    """What `settings.ssl_context()` is to other drivers: libpq takes no context."""
    mode, certificate = settings.database_sslmode, settings.database_sslrootcert
    if certificate is None and mode.startswith("verify"):
        # The wheel's own OpenSSL does not know where this system keeps them.
        system = ssl.get_default_verify_paths()
        certificate = Path(system.cafile or f"{system.capath}/ca-certificates.crt")
    root = {"sslrootcert": str(certificate)} if certificate else {}
    return {"sslmode": mode, **root}


async def _ping(connection: Any) -> None:
    await connection.execute("")


def fileno(connection: Any) -> int:
    return int(connection.fileno())
