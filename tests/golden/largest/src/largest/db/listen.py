"""LISTEN, on a connection of its own that goes around the pooler."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError

from .engine import create_unpooled_engine
from .faults import describe
from .settings import DatabaseSettings

RETRY_SECONDS = 1
LOOK_SECONDS = 1
WAITING = 1000  # for a reader that is slower than the senders

logger = logging.getLogger(__name__)


async def listen(
    settings: DatabaseSettings, channel: str
) -> AsyncGenerator[str | None]:
    """What NOTIFY sends: `async with aclosing(listen(...)) as payloads`.

    None comes first and after each interruption: something may have been missed, so
    look into the tables. It is one connection more than the pool has.
    """
    engine = create_unpooled_engine(settings.direct())
    while True:
        try:
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                received = asyncio.Queue[str](WAITING)
                try:
                    await driver.add_listener(channel, partial(_receive, received))
                    yield None
                    while not driver.is_closed():
                        with suppress(TimeoutError):
                            async with asyncio.timeout(LOOK_SECONDS):
                                payload = await received.get()
                            yield payload
                finally:
                    await connection.invalidate()  # it may be lost, or still listen
        except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            logger.warning("LISTEN %s: %s", channel, describe(error))
        await asyncio.sleep(RETRY_SECONDS)


def _receive(received: asyncio.Queue[str], connection: Any, *notification: Any) -> None:
    try:
        received.put_nowait(notification[-1])
    except asyncio.QueueFull:
        connection.terminate()  # and begin anew
