"""What is asked of any server: one thing at start, the rest by the doctor."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import time

from sqlalchemy.ext.asyncio import AsyncConnection

from .dialect import CLOCK, SESSION
from .faults import describe
from .findings import Finding, Look
from .login import LOOPBACK
from .session import Database, open_database
from .settings import DatabaseSettings

# The start waits no longer for a server that is slow to say what it gives.
START_SECONDS = 1

logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_looking(
    settings: DatabaseSettings, look: Look
) -> AsyncIterator[Database]:
    """Log what was found, or end the process: see DATABASE_BUDGET_CHECK."""
    mode = settings.database_budget_check
    async with open_database(settings) as database:
        if mode == "off":
            yield database
            return
        task = asyncio.create_task(_tell(database, look))
        if mode == "refuse":
            await asyncio.wait({task}, timeout=START_SECONDS)
            if task.done() and task.result() == "fail":
                # As a start that fails, but an error would be a traceback. 3 ends the
                # master as well, which has one of its own for the second that it gets.
                os._exit(3 if os.environ.get("WORKER", "1") == "1" else 0)
        try:
            yield database
        finally:
            task.cancel()
            # It has a connection, which the engine would close under it.
            await asyncio.wait({task}, timeout=START_SECONDS)


async def _tell(database: Database, look: Look) -> str:
    try:
        async with database.engine.connect() as connection:
            level, text = await look(connection, database.settings)
    except Exception as error:  # whatever it is, the service can start
        level, text = "warn", f"cannot be checked: {describe(error)}"
    logger.log(logging.INFO if level == "ok" else logging.WARNING, "budget: %s", text)
    return level


async def encryption(_: AsyncConnection, settings: DatabaseSettings) -> Finding:
    mode = settings.database_sslmode
    if mode == "require" and not settings.database_sslrootcert:
        return "warn", "not verified: set DATABASE_SSLMODE=verify-full"
    if mode == "disable" and settings.database_host not in LOOPBACK:
        return "fail", "none: set DATABASE_SSLMODE=verify-full"
    return "ok", "none, on this machine" if mode == "disable" else mode


async def clock(connection: AsyncConnection, _: DatabaseSettings) -> Finding:
    before = time()
    theirs = float((await connection.exec_driver_sql(CLOCK)).scalar_one())
    ahead = theirs - (before + time()) / 2
    if abs(ahead) > 1:
        return "warn", f"the server's is {ahead:+.0f} s ahead: set both by NTP"
    return "ok", "the same to a second"


async def shares_sessions(connection: AsyncConnection) -> bool:
    """Tell whether a pooler gives two connections the same session in turn."""
    async with connection.engine.connect() as other:
        mine, theirs = [
            {(await each.exec_driver_sql(SESSION)).scalar_one() for _ in range(3)}
            for each in (connection, other)
        ]
    return len(mine) + len(theirs) > 2 or mine == theirs
