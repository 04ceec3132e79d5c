"""DATABASE_* variables: where the file is, how long to wait."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from .budget import MAX_OVERFLOW, POOL_SIZE
from .connect import DRIVER
from .dialect import DIALECT
from .environment import EnvironmentSettings

# 0 would mean: not at all.
Seconds = Annotated[float, Field(ge=0.01, le=86_400)]


class DatabaseSettings(EnvironmentSettings):
    # A path, or a URL that ends in it; relative to the working directory.
    database_path: Path = Path("database.sqlite3")
    database_url: str | None = None

    # Together, what one process may open; the reason is in budget.py.
    database_pool_size: PositiveInt = POOL_SIZE
    database_max_overflow: NonNegativeInt = MAX_OVERFLOW

    # In the queue of the pool: whoever would wait longer gets a 503 instead.
    database_acquire_timeout_seconds: Seconds = 3
    # For the one writer before, of this process or another.
    database_lock_timeout_seconds: Seconds = 2

    # An export in all, at the pace of its reader.
    database_export_timeout_seconds: Seconds = 300
    # Whether the warning about a connection that is out for 30 s says who took it.
    database_leak_trace: bool = False

    @property
    def exports_at_once(self) -> int:
        return max(1, self.database_pool_size // 4)

    def direct(self) -> Self:
        """Where migrations go: there is nothing in between."""
        return self

    @property
    def sqlalchemy_url(self) -> URL:
        return URL.create(f"{DIALECT}+{DRIVER}", database=str(self.database_path))

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not values.get("database_url"):
            return values
        if "database_path" in values:
            raise ValueError(
                "DATABASE_URL and DATABASE_PATH say the same: remove one of them."
            )
        return values | {"database_path": _path_of(values["database_url"])}


def _path_of(text: str) -> str:
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            f"DATABASE_URL is not a URL: write {DIALECT}:///path/to/file."
        ) from None
    if url.drivername not in (DIALECT, f"{DIALECT}+{DRIVER}"):
        raise ValueError(
            f"DATABASE_URL asks for {url.drivername}, but this service speaks {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:///path/to/file."
        )
    if not url.database or ":memory:" in url.database or url.query:
        # Each connection of the pool would have an empty database of its own.
        raise ValueError(
            f"DATABASE_URL must end in the path of a file: write {DIALECT}:///path."
        )
    return url.database
