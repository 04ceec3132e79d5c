"""Guard of the sessions for reading: rejects what locks, writes or keeps state.

It reads the SQL that is about to be sent, so it sees the text of an owner, a hint and a
CTE alike. A function of the database's own that writes is known to its server only.
"""

import re
from typing import Any
from weakref import WeakSet

from sqlalchemy import Compiled, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine

from .patterns import OMITS_LOCKS, QUOTED, STATEFUL

_READS = re.compile(r"[\s(]*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_REJECTED = re.compile(
    r";\s*\S"  # a second statement
    r"|\bFOR\s+(NO\s+KEY\s+)?(UPDATE|(KEY\s+)?SHARE)\b"
    # INSERT, MERGE and REPLACE have it too.
    r"|\bINTO\b"
    # In a CTE, or after one and its SEARCH or CYCLE.
    r"|([()]|\b(SET|USING)\s+\w+\s)\s*"
    r"(DELETE(?=\s.*?\bFROM\b)|UPDATE(?=\s.*?\bSET\b))"
    rf"|{STATEFUL}",
    re.IGNORECASE | re.DOTALL,
)
_QUOTED = re.compile(QUOTED, re.DOTALL | re.IGNORECASE)
_NAME = re.compile(r"\w+")

# A statement is compiled once: so it is checked once.
_checked: "WeakSet[Compiled]" = WeakSet()


def guard(engine: AsyncEngine) -> None:
    event.listen(engine.sync_engine, "before_cursor_execute", _check)


def rejection(sql: str) -> str | None:
    """What a session for reading does not send; None: nothing."""
    sql = _QUOTED.sub(_unquoted, sql)
    if not _READS.match(sql):
        return " ".join(sql.split()[:2])
    if not (found := _REJECTED.search(sql)):
        return None
    words = " ".join(found[0].split()).strip("() ")
    return "a second statement" if words.startswith(";") else words


def _check(_: Any, __: Any, sql: str, ___: Any, context: Any, ____: bool) -> None:
    compiled = context.compiled  # None of a text for the driver
    if "guarded" not in context.execution_options or compiled in _checked:
        return
    found = rejection(sql)
    if OMITS_LOCKS and compiled and not found:
        found = rejection(str(context.invoked_statement))
    if found:
        raise InvalidRequestError(
            f"A read session executes one SELECT that only reads, and not {found}: use"
            " a Write."
        )
    if compiled:
        _checked.add(compiled)


def _unquoted(quoted: "re.Match[str]") -> str:
    """A name in quotes may be that of a function; a text or a comment is nothing."""
    first, name = quoted[0][0], quoted[0][1:-1]
    if first in "-/#":
        return " "
    return name if first in '"`[' and _NAME.fullmatch(name) else "0"
