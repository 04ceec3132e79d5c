"""How the doctor tells what it has found: a line each."""

from collections.abc import Awaitable, Callable, Mapping

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .engine import create_engine
from .faults import describe
from .settings import DatabaseSettings

LEVELS = ("ok", "warn", "fail")
Finding = tuple[str, str]  # ok, warn or fail; what was found, and what helps
Look = Callable[[AsyncConnection, DatabaseSettings], Awaitable[Finding]]


async def examine(
    settings: DatabaseSettings, looks: Mapping[str, Look], hints: Mapping[str, str] = {}
) -> bool:
    """Print a line for each look; tell whether one has failed."""
    # Two connections: to see whether they get two sessions.
    engine = create_engine(settings.model_copy(update={"database_pool_size": 2}))
    levels = []
    try:
        async with engine.connect() as connection:
            for name, look in looks.items():
                level, text = await look(connection, settings)
                print(f"{level:4}  {name:10}  {text}")
                levels.append(level)
    except DBAPIError as error:
        text = describe(error)
        found = [hint for words, hint in hints.items() if words in text]
        print(f"fail  {[*looks][len(levels)]:10}  {text}{': '.join(['', *found])}")
        levels.append("fail")
    finally:
        await engine.dispose()
    return "fail" in levels
