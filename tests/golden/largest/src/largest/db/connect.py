"""What asyncpg must be told, and how it is asked and cut."""

from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncEngine

from .startup import startup_args
from .watch import Watch, bounded

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DRIVER = "asyncpg"


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "async_creator_fn": bounded(
            asyncpg.connect,
            settings,
            fileno=fileno,
            failure=asyncpg.ClientCannotConnectError,
        ),
        "ssl": settings.ssl_context() or False,
        **startup_args(settings),
    }


def prepare(engine: AsyncEngine, settings: "DatabaseSettings") -> None:
    """What every connection of the pool needs."""
    Watch(engine, settings, ping=_ping, fileno=fileno)
    event.listen(engine.sync_engine, "handle_error", _drop_stale)


def _drop_stale(context: ExceptionContext) -> None:
    """A migration has changed a table behind this connection's prepared statements.

    The next connection knows the table as it is now: treat it like a lost one.
    """
    cause = getattr(context.original_exception, "__cause__", None)
    if isinstance(cause, asyncpg.InvalidCachedStatementError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False


async def _ping(connection: Any) -> None:
    # One round trip; the `;` that SQLAlchemy sends takes up to three.
    await connection.execute("SELECT 1")


def fileno(connection: Any) -> int:
    return int(connection._transport.get_extra_info("socket").fileno())
