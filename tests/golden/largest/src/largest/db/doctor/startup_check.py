"""Check of the connection budget at start: see DATABASE_BUDGET_CHECK."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from ..database import Database
from ..errors import safe_message
from ..features import DatabaseSettings
from ..open import open_database
from .checks import SERVER_CHECKS, connection_demand, processes

# The start waits no longer for a server that is slow to answer.
START_SECONDS = 1

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_database_checked(settings: DatabaseSettings) -> AsyncIterator[Database]:
    """Open the database and log whether all connections fit, or end the process."""
    mode = settings.database_budget_check
    async with open_database(settings) as database:
        if mode == "off":
            yield database
            return
        task = asyncio.create_task(check_budget(database.engine, settings))
        if mode == "refuse":
            await asyncio.wait({task}, timeout=START_SECONDS)
            if task.done() and task.result() == "fail":
                # Exit code 3 makes the master stop. Only the first worker uses it: for
                # a second one the master logs a traceback.
                os._exit(3 if os.environ.get("WORKER", "1") == "1" else 0)
        try:
            yield database
        finally:
            task.cancel()
            # It has a connection, which the engine would close under it.
            await asyncio.wait({task}, timeout=START_SECONDS)


async def check_budget(engine: AsyncEngine, settings: DatabaseSettings) -> str:
    """Log it; ok, warn or fail."""
    budget = {**SERVER_CHECKS, **settings.checks}["budget"]
    try:
        async with engine.connect() as connection:
            level, text = await budget(connection, settings)
    except Exception as error:  # whatever it is, the service can start
        level, text = "warn", f"cannot be checked: {safe_message(error)}"
    severity = logging.INFO if level == "ok" else logging.WARNING
    connections, _ = connection_demand(settings)
    facts = {"budget": level, "processes": processes(), "connections": connections}
    logger.log(severity, "connection budget: %s", text, extra=facts)
    return level
