"""The engine: a connection for each session, closed with it."""

from typing import Any

from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .connect import connect_args, prepare
from .settings import DatabaseSettings


class ClosingPool(NullPool):
    """Takes leave of the server for 2 s at most, should it say nothing more.

    Rests on a name of SQLAlchemy that is not public: hence `sqlalchemy<2.2`.
    """

    def _close_connection(self, connection: Any, *, terminate: bool = False) -> None:
        super()._close_connection(connection, terminate=True)


def create_engine(settings: DatabaseSettings) -> AsyncEngine:
    """Open nothing yet: the first statement of a session connects.

    Nothing is kept for the next request: the function is frozen in between, where it
    can neither answer on a connection nor learn that it was lost.

    Connections are in AUTOCOMMIT, so that a read costs one round trip: no BEGIN and
    no ROLLBACK around it. What executes on this engine commits by itself;
    `dialect.transactional()` gives the same engine with transactions.
    """
    engine = create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        poolclass=ClosingPool,
        # What is closed needs no ROLLBACK.
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Parameters are customers' data: keep them out of SQLAlchemy's messages.
        hide_parameters=True,
    )
    prepare(engine, settings)
    return engine


def create_unpooled_engine(settings: DatabaseSettings) -> AsyncEngine:
    """For a connection that ends with its use: of a migration, of a listener."""
    return create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        poolclass=NullPool,
        hide_parameters=True,
    )
