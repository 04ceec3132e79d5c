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


TYPES: dict[Any, Any] = {float: Double()}
# An annotation without a type that keeps its values, and what helps.
REJECTED: dict[Any, str] = {
    Decimal: "SQLite has no exact decimals: store whole numbers of the smallest unit,"
    " such as cents.",
}
MIGRATION_OPTIONS: dict[str, Any] = {
    # SQLite cannot alter a column: Alembic copies the table instead.
    "render_as_batch": True,
    # It can take back a half-done migration; Alembic does not rely on that by itself.
    "transactional_ddl": True,
}
