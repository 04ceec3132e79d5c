"""A file for the tests."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.ext.asyncio import AsyncEngine

UNREACHABLE = {"database_path": Path("/nowhere/database.sqlite3")}


@contextmanager
def scratch_database(_: Callable[[str], AsyncEngine]) -> Iterator[str]:
    """Yield the URL of a database of the tests' own."""
    with TemporaryDirectory() as folder:
        yield f"sqlite:///{Path(folder) / 'database.sqlite3'}"
