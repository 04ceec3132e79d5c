"""Creates the engine: one for each process, inside of its event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from sqlalchemy import URL, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..config.backend import DIALECT, DRIVER
from ..config.limits import Limits
from .driver import DRIVERNAME, connect_args
from .metrics import instrument
from .pool import FairPool
from .types import json_text

# A statement that still runs delays the close of its connection.
DISPOSE_TIMEOUT_SECONDS = 2
# For drop_inherited_connections().
ENGINES: WeakSet[AsyncEngine] = WeakSet()

# What an add-on does to an engine that was just created.
Hook = Callable[[AsyncEngine, Path, Limits], None]


def create_engine(
    file: Path, limits: Limits, hooks: Sequence[Hook] = ()
) -> AsyncEngine:
    """Open nothing yet: the first checkout connects.

    Connections are in AUTOCOMMIT, so that a read costs one round trip: no BEGIN and no
    ROLLBACK around it. What executes on this engine commits by itself;
    `dialect.with_transactions()` gives the same pool with transactions.
    """
    engine = create_async_engine(
        URL.create(DRIVERNAME, database=str(file)),
        connect_args=connect_args(limits),
        poolclass=FairPool,
        pool_size=limits.pool_size,
        max_overflow=limits.max_overflow,
        pool_timeout=limits.acquire_timeout_seconds,
        # The connection returned last is used next: the others can expire.
        pool_use_lifo=True,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Parameters are customers' data: keep them out of SQLAlchemy's messages.
        hide_parameters=True,
        json_serializer=json_text,
    )
    instrument(engine, "primary", leak_trace=limits.leak_trace)
    for hook in hooks:
        hook(engine, file, limits)
    ENGINES.add(engine)
    return engine


def create_unpooled_engine(
    file: Path, limits: Limits, hooks: Sequence[Hook] = ()
) -> AsyncEngine:
    """For a connection that is closed after its use, of a migration."""
    engine = create_async_engine(
        URL.create(f"{DIALECT}+{DRIVER}", database=str(file)),
        connect_args=connect_args(limits),
        poolclass=NullPool,
        hide_parameters=True,
        json_serializer=json_text,
    )
    for hook in hooks:
        hook(engine, file, limits)
    return engine


@asynccontextmanager
async def disposing(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        yield engine
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISPOSE_TIMEOUT_SECONDS):
                await engine.dispose()


def drop_inherited_connections() -> None:
    """Drop, without closing, the connections that a forked process has inherited.

    Two processes on one socket read each other's answers. The parent still uses its
    connections, hence close=False.
    """
    for engine in list(ENGINES):
        engine.sync_engine.dispose(close=False)
