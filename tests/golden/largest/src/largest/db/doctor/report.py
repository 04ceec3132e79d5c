"""Report of the doctor: a line for each check."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import safe_message

CheckResult = tuple[str, str]  # ok, warn or fail; what was found, and what helps
Check = Callable[[AsyncConnection, Any], Awaitable[CheckResult]]


async def run_checks(
    engine: AsyncEngine,
    settings: Any,
    checks: Mapping[str, Check],
    hints: Mapping[str, str],
) -> bool:
    """Print a line for each check; whether none has failed. A hint follows an error
    that contains its words.
    """
    levels = []
    try:
        async with engine.connect() as connection:
            for name, check in checks.items():
                level, text = await check(connection, settings)
                print(f"{level:4}  {name:10}  {text}")
                levels.append(level)
    except DBAPIError as error:
        text = safe_message(error)
        found = [hint for words, hint in hints.items() if words in text]
        print(f"fail  {[*checks][len(levels)]:10}  {text}{': '.join(['', *found])}")
        levels.append("fail")
    finally:
        await engine.dispose()
    return "fail" not in levels
