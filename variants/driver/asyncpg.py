"""asyncpg: how to connect, ping, and reach the socket."""

from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from ..config.limits import Limits
from ..config.server import Server
from .session_init import session_options
from .validation import IsolationLevels, connect_with_timeout
from .watchdog import BoundedDialect

DRIVERNAME = "postgresql+asyncpg_bounded"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")
STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
# Of an encoder, for a value of another type.
BUGS = (TypeError, AttributeError)
MAX_PARAMETERS = 32_767  # of one statement


class Dialect(BoundedDialect, IsolationLevels, PGDialect_asyncpg):
    supports_statement_cache = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        event.listen(engine, "handle_error", _drop_stale)
        event.listen(engine, "handle_error", _name_value_error)


def connect_args(server: Server, limits: Limits) -> dict[str, Any]:
    return {
        "async_creator_fn": connect_with_timeout(
            asyncpg.connect,
            server.password,
            limits.connect_timeout_seconds,
            fileno=fileno,
            failure=asyncpg.ClientCannotConnectError,
        ),
        "ssl": server.ssl_context() or False,
        **session_options(limits),
    }


def _drop_stale(context: ExceptionContext) -> None:
    """A migration has changed a table or a type behind the prepared statements.

    A connection would reject them for as long as it lives: treat all of the pool like
    lost ones. What is internal to a server is not translated.
    """
    cause = getattr(context.original_exception, "__cause__", None)
    if isinstance(cause, asyncpg.InternalServerError):
        context.is_disconnect |= "cache lookup failed" in str(cause)
    elif isinstance(cause, STALE):
        context.is_disconnect = True


def _name_value_error(context: ExceptionContext) -> None:
    """More parameters than a statement can have, or one of a type that the column does
    not take, which is a bug: nothing was sent.
    """
    error: Any = context.original_exception
    cause = getattr(error, "__cause__", None)
    if isinstance(cause, asyncpg.DataError) and isinstance(cause.__cause__, BUGS):
        # The driver calls it invalid data, and quotes the value.
        text = f"{cause.args[0].partition(':')[0]}: {cause.__cause__}"
        wrapped: Any = context.sqlalchemy_exception
        cause.args = error.args = wrapped.args = (text,)
        cause.sqlstate = error.sqlstate = None
    is_many = len(context.parameters or ()) > MAX_PARAMETERS
    if isinstance(cause, asyncpg.InterfaceError) and is_many:
        cause.__cause__ = ValueError(str(cause))


async def ping(connection: Any) -> None:
    # One round trip; the `;` that SQLAlchemy sends takes up to three.
    await connection.execute("SELECT 1")


def fileno(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
