"""asyncpg: how to connect, ping, and reach the socket."""

from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import Engine, ExceptionContext, event
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from ..config.limits import Limits
from ..config.server import Server
from .session_init import session_options
from .validation import connect_with_timeout
from .watchdog import BoundedDialect

DRIVERNAME = "postgresql+asyncpg_bounded"
registry.register(DRIVERNAME.replace("+", "."), __name__, "Dialect")


class Dialect(BoundedDialect, PGDialect_asyncpg):
    supports_statement_cache = True

    @classmethod
    def engine_created(cls, engine: Engine) -> None:
        event.listen(engine, "handle_error", _drop_stale)


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
    """A migration has changed a table behind this connection's prepared statements.

    The next connection knows the table as it is now: treat it like a lost one.
    """
    cause = getattr(context.original_exception, "__cause__", None)
    if isinstance(cause, asyncpg.InvalidCachedStatementError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def ping(connection: Any) -> None:
    # One round trip; the `;` that SQLAlchemy sends takes up to three.
    await connection.execute("SELECT 1")


def fileno(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
