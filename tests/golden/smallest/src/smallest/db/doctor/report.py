"""Report of the doctor: a line for each check, or one object of JSON."""

import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, Self

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ..errors import safe_message

CheckResult = tuple[str, str]  # ok, warn or fail; what was found, and what helps
Check = Callable[[AsyncConnection, Any], Awaitable[CheckResult]]

COLORS = {"ok": 32, "warn": 33, "fail": 31}  # green, yellow, red


class Report:
    """Prints each result at once, or all of them at the end if `--json` was given.

    The end of its block ends the process. A wrong setting is a result for machines too.
    """

    def __init__(self) -> None:
        words = "Compares the real database with the settings of the environment."
        parser = ArgumentParser(description=words)
        parser.add_argument("--json", action="store_true", help="for machines")
        self._as_json = parser.parse_args().json
        # https://no-color.org
        self._in_color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._results: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._as_json and isinstance(error, SystemExit):
            if isinstance(error.code, str):  # the sentence about a setting
                self.add("settings", "fail", error.code)
                self.end()
        elif not error:
            self.end()

    def add(self, check: str, level: str, text: str) -> None:
        self._results.append({"check": check, "level": level, "message": text})
        if not self._as_json:
            shown = f"{level:4}"
            if self._in_color:
                shown = f"\x1b[{COLORS[level]}m{shown}\x1b[0m"
            print(f"{shown}  {check:10}  {text}")

    def end(self) -> NoReturn:
        """End the process: exit code 1 if a check has failed."""
        failed = "fail" in [each["level"] for each in self._results]
        if self._as_json:
            print(json.dumps({"ok": not failed, "checks": self._results}, indent=2))
        sys.exit(failed)


async def run_checks(
    engine: AsyncEngine,
    settings: Any,
    checks: Mapping[str, Check],
    hints: Mapping[str, str],
    report: Report,
) -> None:
    """Report each check. A hint follows an error that contains its words."""
    name = ""
    try:
        async with engine.connect() as connection:
            for name, check in checks.items():
                report.add(name, *await check(connection, settings))
    except DBAPIError as error:
        text = safe_message(error)
        found = [hint for words, hint in hints.items() if words in text]
        report.add(name or next(iter(checks)), "fail", ": ".join([text, *found]))
    finally:
        await engine.dispose()
