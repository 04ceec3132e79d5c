"""The column type for each annotation of a model, and how a migration writes it."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext


@sa.event.listens_for(sa.Table, "after_parent_attach")
def _compare_exactly(own: sa.Table, _: sa.MetaData) -> None:
    # By default "Ada" = "ada", and a unique key takes only one of them.
    own.dialect_kwargs["mysql_collate"] = "utf8mb4_bin"


class UTCDateTime(sa.TypeDecorator[datetime]):
    """MySQL stores no time zone: write UTC, and say so when reading."""

    impl = mysql.DATETIME(fsp=6)  # without it, whole seconds
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> Any:
        if value and not value.tzinfo:
            raise ValueError("a time without a zone: write datetime.now(UTC)")
        return value.astimezone(UTC).replace(tzinfo=None) if value else None

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        return value.replace(tzinfo=UTC) if value else None


def _render_item(
    kind: str, item: Any, context: "AutogenContext"
) -> str | Literal[False]:
    """A migration names the type of the column, not the Python class around it."""
    if kind == "type" and isinstance(item, UTCDateTime):
        context.imports.add("from sqlalchemy.dialects import mysql")
        return "mysql.DATETIME(fsp=6)"
    return False


TYPES: dict[Any, Any] = {
    datetime: UTCDateTime(),
    int: sa.BigInteger(),
}
MIGRATION_OPTIONS: dict[str, Any] = {"render_item": _render_item}
