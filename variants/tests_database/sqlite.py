"""A file for the tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.ext.asyncio import AsyncEngine

SLOW = (
    "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counter"
    " WHERE n < 10000000) SELECT count(*) FROM counter"
)
# To empty a table, whatever keys lead to it.
EMPTY = "DELETE FROM {}"
KEYS_OFF, KEYS_ON = ["PRAGMA foreign_keys=OFF"], ["PRAGMA foreign_keys=ON"]
UNREACHABLE = {"database_path": Path("/nowhere/database.sqlite3")}
# The log has what a test provokes, and nothing else.
QUIET = {"LOG_LEVEL": "WARNING"}


@contextmanager
def scratch_database(_: Callable[[str], AsyncEngine]) -> Iterator[str]:
    """Yield the URL of a database for the tests."""
    with TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'database.sqlite3'}"
