"""Column types for annotations of models, where those of SQLAlchemy lose something."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from math import isnan
from operator import add, sub
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from ..json_text import json_text as json_text
from . import UnfitValue

DATETIME = sa.DateTime(timezone=True)
TIME = sa.Time()
JSON = sa.JSON(none_as_null=True)


class TextTime(sqlite.DATETIME):
    """Whole seconds as CURRENT_TIMESTAMP writes them: SQLite compares texts."""

    def bind_processor(self, dialect: Any) -> Any:
        write: Any = super().bind_processor(dialect)

        def process(value: datetime | None) -> Any:
            return value and write(value).removesuffix(".000000")

        return process


# SQLite would add the years, as numbers, and could not read the row again.
NO_ARITHMETIC = (
    "SQLite cannot add to a time: compute the bound in Python, as in"
    " `Item.at < now - timedelta(days=1)`"
)


class _Comparator(sa.TypeDecorator.Comparator[Any]):
    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        if op in (add, sub):
            raise TypeError(NO_ARITHMETIC)
        return super().operate(op, *other, **options)

    def reverse_operate(self, op: Any, other: Any, **options: Any) -> Any:
        return self.operate(op, other, **options)


class TimeArithmetic:
    """Mixin of a type: there is none here."""

    comparator_factory: Any = _Comparator


class Day(TimeArithmetic, sa.TypeDecorator[date]):
    impl = sa.Date
    cache_ok = True


class Duration(TimeArithmetic, sa.TypeDecorator[timedelta]):
    impl = sa.Interval
    cache_ok = True

    def bind_processor(self, dialect: Any) -> Any:
        write: Any = super().bind_processor(dialect)

        def process(value: timedelta | None) -> str | None:
            text = write(value)
            # The database writes none, so all rows have all digits.
            return text and f"{text}.000000"[:26]

        return process


class Double(sa.TypeDecorator[float]):
    """SQLite would store NULL for NaN."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> float | None:
        if value is not None and isnan(value):
            raise UnfitValue("nan cannot be stored: write a number")
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
    sa.Date: lambda _: Day(),
    sa.DateTime: lambda column: column.type,  # the zone: see base.py
    sa.Interval: lambda _: Duration(),
}
MIGRATION_OPTIONS: dict[str, Any] = {
    # SQLite cannot alter a column: Alembic copies the table instead.
    "render_as_batch": True,
    # It can take back a half-done migration; Alembic does not rely on that by itself.
    "transactional_ddl": True,
}
