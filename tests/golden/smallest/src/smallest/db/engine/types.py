"""Column types for annotations of models, where those of SQLAlchemy lose something."""

from decimal import Decimal
from math import isnan
from typing import Any

import sqlalchemy as sa

from ..json_text import json_text as json_text

DATETIME = sa.DateTime(timezone=True)
TIME = sa.Time()
JSON = sa.JSON(none_as_null=True)


class Double(sa.TypeDecorator[float]):
    """SQLite would store NULL for NaN."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> float | None:
        if value is not None and isnan(value):
            raise ValueError("nan cannot be stored: write a number")
        return value


def _count(column: sa.Column[Any]) -> Any:
    """Only a key that is an INTEGER has a value by itself; it has 64 bits, too."""
    is_counted = column.primary_key and not column.default
    return sa.Integer() if is_counted else column.type


TYPES: dict[Any, Any] = {float: Double()}
# An annotation without a type that keeps its values, and what helps.
REJECTED: dict[Any, str] = {
    Decimal: "SQLite has no exact decimals: store whole numbers of the smallest unit,"
    " such as cents.",
}
# Generic types whose columns lose something here: by a column, the type that does not.
WIDER: dict[Any, Any] = {
    sa.BigInteger: _count,
    sa.DateTime: lambda column: column.type,  # the zone: see base.py
}
MIGRATION_OPTIONS: dict[str, Any] = {
    # SQLite cannot alter a column: Alembic copies the table instead.
    "render_as_batch": True,
    # It can take back a half-done migration; Alembic does not rely on that by itself.
    "transactional_ddl": True,
}
