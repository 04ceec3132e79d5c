"""Creates the engine, which opens a connection for each statement or transaction.

Nothing is kept for the next request: the function is frozen in between, where it can
neither answer on a connection nor learn that it was lost.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ..config.backend import DIALECT, DRIVER
from ..config.limits import Limits
from ..config.server import Server
from .driver import DRIVERNAME, connect_args, fileno, ping
from .types import json_text
from .validation import Validation
from .watchdog import Watchdog

# A driver may wait for the answer of a dead server when it closes a connection.
DISPOSE_TIMEOUT_SECONDS = 2

# What an add-on does to an engine that was just created.
Hook = Callable[[AsyncEngine, Server, Limits], None]


def create_engine(
    server: Server, limits: Limits, hooks: Sequence[Hook] = ()
) -> AsyncEngine:
    """Open nothing yet: the first statement of a session connects.

    Connections are in AUTOCOMMIT, so that a read costs one round trip: no BEGIN and no
    ROLLBACK around it. What executes on this engine commits by itself;
    `dialect.with_transactions()` gives the same engine with transactions.
    """
    watchdog = Watchdog(fileno, limits.client_timeout_seconds, "primary")
    engine = create_async_engine(
        server.url(DRIVERNAME),
        connect_args=connect_args(server, limits),
        watchdog=watchdog,
        poolclass=NullPool,
        # A connection that is closed needs no ROLLBACK.
        pool_reset_on_return=None,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        # Parameters are customers' data: keep them out of SQLAlchemy's messages.
        hide_parameters=True,
        json_serializer=json_text,
    )
    Validation(engine, watchdog, ping)
    for hook in hooks:
        hook(engine, server, limits)
    return engine


def create_unpooled_engine(
    server: Server, limits: Limits, hooks: Sequence[Hook] = ()
) -> AsyncEngine:
    """For a connection that is closed after its use, of a migration or of LISTEN."""
    engine = create_async_engine(
        server.url(f"{DIALECT}+{DRIVER}"),
        connect_args=connect_args(server, limits),
        poolclass=NullPool,
        hide_parameters=True,
        json_serializer=json_text,
    )
    for hook in hooks:
        hook(engine, server, limits)
    return engine


@asynccontextmanager
async def disposing(engine: AsyncEngine) -> AsyncIterator[AsyncEngine]:
    try:
        yield engine
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(DISPOSE_TIMEOUT_SECONDS):
                await engine.dispose()
