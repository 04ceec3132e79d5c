"""psycopg: how to connect, ping, and reach the socket."""

import ssl
from enum import Enum
from pathlib import Path
from typing import Any

import psycopg
from psycopg.errors import (
    FeatureNotSupported,
    InternalError_,
    SqlclientUnableToEstablishSqlconnection,
)
from psycopg.types.string import StrDumper
from sqlalchemy import URL, Engine, ExceptionContext, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg

from ..config.limits import Limits
from ..config.server import Server
from .session_init import session_options
from .validation import IsolationLevels, connect_with_timeout
from .watchdog import BoundedDialect

DRIVERNAME = "postgresql+psycopg_bounded"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")
MAX_PARAMETERS = 65_535  # of one statement


class Dialect(BoundedDialect, IsolationLevels, PGDialectAsync_psycopg):
    supports_statement_cache = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        event.listen(engine, "handle_error", _drop_stale)
        event.listen(engine, "handle_error", _name_value_error)

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type["Dialect"]:
        return cls


def connect_args(server: Server, limits: Limits) -> dict[str, Any]:
    return {
        "async_creator_fn": connect_with_timeout(
            _connect,
            server.password,
            limits.connect_timeout_seconds,
            fileno=fileno,
            failure=SqlclientUnableToEstablishSqlconnection,
        ),
        "client_encoding": "utf8",
        "gssencmode": "disable",  # else libpq may ask a Kerberos server first
        **_encryption(server),
        **session_options(limits),
    }


def _drop_stale(context: ExceptionContext) -> None:
    """A migration has changed a table or a type behind the prepared statements.

    A connection would reject them for as long as it lives: treat all of the pool like
    lost ones. The message is in the language of the server, the place in its source is
    not; what is internal is not translated.
    """
    error = context.original_exception
    if isinstance(error, FeatureNotSupported):
        context.is_disconnect = error.diag.source_function == "RevalidateCachedQuery"
    elif isinstance(error, InternalError_):
        context.is_disconnect |= "cache lookup failed" in str(error)


def _name_value_error(context: ExceptionContext) -> None:
    """A NUL in a text: psycopg's own DataError, before anything is sent. And more
    parameters than a statement can have.
    """
    error: Any = context.original_exception
    if (
        type(error) is psycopg.OperationalError
        and len(context.parameters or ()) > MAX_PARAMETERS
    ):
        error.__cause__ = ValueError(str(error))
    execution: Any = context.execution_context
    cursor = getattr(execution, "cursor", None)
    # The cursor of a stream has no result.
    was_sent = not cursor or getattr(cursor._cursor, "pgresult", None)
    if type(error) is psycopg.DataError and not was_sent:
        error.__cause__ = ValueError(str(error))


class _Member(StrDumper):
    """Of a plain Enum: the text of its value, where psycopg would send its name."""

    def dump(self, obj: Any) -> Any:
        return super().dump(str(obj.value))


psycopg.adapters.register_dumper(Enum, _Member)


class _ServerCursor(psycopg.AsyncServerCursor[Any]):
    """Closed with its connection when a reader leaves: no warning, whichever of the two
    is collected first.
    """

    def __del__(self, *_: Any) -> None:
        pass


async def _connect(*args: Any, **kwargs: Any) -> psycopg.AsyncConnection[Any]:
    try:
        connection = await psycopg.AsyncConnection.connect(*args, **kwargs)
    except psycopg.OperationalError as error:
        # libpq has no SQLSTATE when it cannot connect, only a text.
        raise SqlclientUnableToEstablishSqlconnection(str(error)) from error
    connection.server_cursor_factory = _ServerCursor
    return connection


def _encryption(server: Server) -> dict[str, str]:
    """What `server.ssl_context()` is to other drivers: libpq takes no context."""
    mode, certificate = server.sslmode, server.sslrootcert
    if certificate is None and mode.startswith("verify"):
        # The OpenSSL of the wheel does not know where this system keeps them.
        system = ssl.get_default_verify_paths()
        certificate = Path(system.cafile or f"{system.capath}/ca-certificates.crt")
    root = {"sslrootcert": str(certificate)} if certificate else {}
    return {"sslmode": mode, **root}


async def ping(connection: Any) -> None:
    await connection.execute("")


def fileno(connection: Any) -> int:
    return int(connection.fileno())
