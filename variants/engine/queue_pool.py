"""The engine: one per process, created inside its loop, known to the fork hook."""

from weakref import WeakSet

from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .connect import connect_args, prepare
from .metrics import MeasuredPool, measure
from .settings import DatabaseSettings

# What a fork hook makes a worker forget. See forget_connections().
ENGINES: WeakSet[AsyncEngine] = WeakSet()


def create_engine(settings: DatabaseSettings, name: str = "primary") -> AsyncEngine:
    """Open nothing yet: the first checkout connects. `name` is for the figures.

    Connections rest in AUTOCOMMIT, so that a read costs one round trip: no BEGIN
    and no ROLLBACK around it. What executes on this engine commits by itself;
    `dialect.transactional()` gives the same pool with transactions.
    """
    engine = create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        poolclass=MeasuredPool,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_acquire_timeout_seconds,
        # The last one back is the next one out: the others go idle and can be spared.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Parameters are customers' data: keep them out of SQLAlchemy's messages.
        hide_parameters=True,
    )
    prepare(engine, settings)
    measure(engine, name, leak_trace=settings.database_leak_trace)
    ENGINES.add(engine)
    return engine


def create_unpooled_engine(settings: DatabaseSettings) -> AsyncEngine:
    """For a connection that ends with its use: of a migration, of a listener."""
    return create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        poolclass=NullPool,
        hide_parameters=True,
    )


def forget_connections() -> None:
    """Drop, without closing, what a forked process has inherited.

    Two processes on one socket read each other's answers. The parent still uses
    its connections, hence close=False.
    """
    for engine in list(ENGINES):
        engine.sync_engine.dispose(close=False)
