"""The column type for each annotation of a model, and how a migration writes it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


class UTCDateTime(sa.TypeDecorator[datetime]):
    """SQLite stores no time zone: write UTC, and say so when reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> Any:
        if value and not value.tzinfo:
            raise ValueError("a time without a zone: write datetime.now(UTC)")
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


def _render_item(kind: str, item: Any, _: "AutogenContext") -> str | Literal[False]:
    """A migration names the type of the column, not the Python class around it."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False


TYPES: dict[Any, Any] = {datetime: UTCDateTime()}
MIGRATION_OPTIONS: dict[str, Any] = {
    # SQLite cannot alter a column: Alembic copies the table instead.
    "render_as_batch": True,
    # It can take back a half-done migration; Alembic does not rely on that by itself.
    "transactional_ddl": True,
    "render_item": _render_item,
}
