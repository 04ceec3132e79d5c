"""The two engines of a replica: one to read, and one to look at it at any time."""

from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .connect import connect_args, fileno, prepare
from .engine import ENGINES, ask, create_engine
from .pool import give_up
from .read_only import READ_ONLY
from .settings import DatabaseSettings
from .sockets import cut


def create_engines(
    settings: DatabaseSettings, name: str
) -> tuple[AsyncEngine, AsyncEngine]:
    """The second has one connection, which no read can keep busy."""
    engines = create_engine(settings, name), _create_line(settings)
    for engine in engines:
        event.listen(engine.sync_engine, "connect", _tell_read_only)
    return engines


def send_on(engine: AsyncEngine) -> None:
    """Let everybody who waits for the server try elsewhere."""
    pool: Any = engine.sync_engine.pool
    for waiter in list(pool._pool._waiting):
        give_up(waiter)
    for loan in pool.figures.loans:
        if (connection := loan[0]()) and connection.is_valid:
            cut(fileno, connection.driver_connection)


def _create_line(settings: DatabaseSettings) -> AsyncEngine:
    engine = create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        pool_size=1,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
    )
    prepare(engine, settings)
    ENGINES.add(engine)
    return engine


def _tell_read_only(connection: Any, _: Any) -> None:
    """A server that becomes a primary shall not be written to by a read."""
    for statement in READ_ONLY:
        ask(connection, statement)
