"""Opens the database: engine, connection pool, and the router of reads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .config.settings import ConnectionSettings
from .database import Database
from .engine.create import create_engine, disposing


@asynccontextmanager
async def open_database(settings: ConnectionSettings) -> AsyncIterator[Database]:
    """The one way in, for the service, scripts and tests alike."""
    engine = create_engine(settings.server, settings.limits, settings.hooks)
    async with disposing(engine), settings.open_router(engine, settings) as router:
        yield Database(engine, settings, router)
