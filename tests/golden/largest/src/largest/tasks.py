"""Your tasks. A worker finds tasks here, and in the modules that `api.py` imports."""

import logging

from sqlalchemy import func, select

from .db import Database
from .worker.app import task

logger = logging.getLogger(__name__)


@task()
async def greet(database: Database, name: str) -> None:
    """An example that needs no table: `await greet.enqueue("ada")`."""
    async with database.read() as session:
        now = await session.scalar(select(func.now()))
    logger.info("Hello %s, it is %s.", name, now)
