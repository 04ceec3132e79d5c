"""LISTEN, on a connection to the server itself, around the pooler."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from functools import partial
from typing import Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError

from ..engine.create import create_unpooled_engine
from ..errors import safe_message
from .settings import PoolerSettings

RETRY_SECONDS = 1
CHECK_SECONDS = 1
QUEUE_SIZE = 1000  # of a reader that is slower than the senders

logger = logging.getLogger(__name__)


async def listen(settings: PoolerSettings, channel: str) -> AsyncGenerator[str | None]:
    """The payloads of NOTIFY: `async with aclosing(listen(...)) as payloads`.

    None comes first and after each interruption: a payload may have been missed, so
    read the tables. RuntimeError beyond DATABASE_LISTENERS: each is a connection that
    the budget counts.
    """
    with _counted(settings.database_listeners):
        async with aclosing(_listen(settings, channel)) as payloads:
            async for payload in payloads:
                yield payload


async def _listen(settings: PoolerSettings, channel: str) -> AsyncGenerator[str | None]:
    engine = create_unpooled_engine(settings.direct(), settings.limits)
    while True:
        try:
            async with engine.connect() as connection:
                raw = await connection.get_raw_connection()
                driver: Any = raw.driver_connection
                received = asyncio.Queue[str](QUEUE_SIZE)
                try:
                    await driver.add_listener(channel, partial(_receive, received))
                    yield None
                    while not driver.is_closed():
                        with suppress(TimeoutError):
                            async with asyncio.timeout(CHECK_SECONDS):
                                payload = await received.get()
                            yield payload
                finally:
                    await connection.invalidate()  # it may be lost, or still subscribed
        except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            facts = {"channel": channel, "cause": safe_message(error)}
            text = "LISTEN %(channel)s interrupted, reconnecting: %(cause)s"
            logger.warning(text, facts, extra=facts)
        await asyncio.sleep(RETRY_SECONDS)


def _receive(received: asyncio.Queue[str], connection: Any, *notification: Any) -> None:
    try:
        received.put_nowait(notification[-1])
    except asyncio.QueueFull:
        connection.terminate()  # and reconnect


_running = 0


@contextmanager
def _counted(most: int) -> Iterator[None]:
    global _running
    if _running >= most:
        raise RuntimeError(
            f"DATABASE_LISTENERS={most}: set it to the number of listen() in a process."
        )
    _running += 1
    try:
        yield
    finally:
        _running -= 1
