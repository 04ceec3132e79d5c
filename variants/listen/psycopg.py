"""LISTEN, on a connection of its own that goes around the pooler."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy.exc import DBAPIError

from .engine import create_unpooled_engine
from .faults import describe
from .settings import DatabaseSettings

RETRY_SECONDS = 1

logger = logging.getLogger(__name__)


async def listen(
    settings: DatabaseSettings, channel: str
) -> AsyncGenerator[str | None]:
    """What NOTIFY sends: `async with aclosing(listen(...)) as payloads`.

    None comes first and after each interruption: something may have been missed, so
    look into the tables. It is one connection more than the pool has.
    """
    engine = create_unpooled_engine(settings.direct()).execution_options(
        isolation_level="AUTOCOMMIT"  # within a transaction nothing is sent
    )
    while True:
        try:
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                try:
                    await driver.execute(SQL("LISTEN {}").format(Identifier(channel)))
                    yield None
                    async with aclosing(driver.notifies()) as notifications:
                        async for notification in notifications:
                            yield notification.payload
                finally:
                    await connection.invalidate()  # it may be lost, or still listen
        except (DBAPIError, psycopg.Error) as error:
            logger.warning("LISTEN %s: %s", channel, describe(error))
        await asyncio.sleep(RETRY_SECONDS)
