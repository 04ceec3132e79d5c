"""DATABASE_* variables: the file, the connection pool, timeouts."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ..budget import MAX_OVERFLOW, POOL_SIZE
from .backend import DIALECT, DRIVER
from .environment import EnvironmentSettings
from .limits import Limits

# 0 would mean: not at all.
Seconds = Annotated[float, Field(ge=0.01, le=86_400)]


class ConnectionSettings(EnvironmentSettings):
    # Set by features.py: what add-ons do to a new engine, and the router of reads.
    hooks: ClassVar[Sequence[Any]] = ()
    open_router: ClassVar[Callable[..., Any]]

    # A path, or a URL that ends in it; relative to the working directory.
    database_path: Path = Path("database.sqlite3")
    database_url: str | None = None

    # Connections of one process, as a sum; budget.py has the reason.
    database_pool_size: PositiveInt = POOL_SIZE
    database_max_overflow: NonNegativeInt = MAX_OVERFLOW

    # In the queue of the pool: beyond that the pool rejects a checkout.
    database_acquire_timeout_seconds: Seconds = 3
    # Until the writer before has committed, of this process or another.
    database_lock_timeout_seconds: Seconds = 2

    # An export in all, at the pace of its reader.
    database_export_timeout_seconds: Seconds = 300
    # Say in the warning about a possible leak which lines hold the connection.
    database_leak_trace: bool = False

    @property
    def limits(self) -> Limits:
        names = [field.name for field in fields(Limits)]
        return Limits(**{name: getattr(self, f"database_{name}") for name in names})

    @property
    def server(self) -> Path:
        return self.database_path

    def direct(self) -> Path:
        """The file itself, for migrations."""
        return self.server

    @property
    def exports_at_once(self) -> int:
        return max(1, self.database_pool_size // 4)

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: dict[str, Any]) -> dict[str, Any]:
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
            f"DATABASE_URL asks for {url.drivername}, but this service uses {DRIVER}:"
            f" write {DIALECT}+{DRIVER}:///path/to/file."
        )
    if not url.database or ":memory:" in url.database or url.query:
        # Each connection of the pool would have an empty database of its own.
        raise ValueError(
            f"DATABASE_URL must end in the path of a file: write {DIALECT}:///path."
        )
    return url.database
