"""Column types for annotations of models, where those of SQLAlchemy lose something."""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from ..json_text import json_text as json_text

DATETIME = sa.DateTime(timezone=True)
TIME = sa.Time()
JSON = postgresql.JSONB(none_as_null=True)
DECIMAL = 1700  # what the protocol calls it


class Whole(sa.TypeDecorator[int]):
    """Of `func.sum()`, too, which is a decimal number to the server."""

    impl: Any = sa.BigInteger
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        return self.impl_instance.coerce_compared_value(op, value)

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        # A column needs none: it would cost each value of each row.
        return _whole if coltype == DECIMAL else None


class WholeInteger(Whole):
    impl = sa.Integer
    cache_ok = True


def _whole(value: Decimal | None) -> int | None:
    return None if value is None else int(value)


class TimeArithmetic:
    """Mixin of a type: PostgreSQL adds a timedelta to a time."""


TYPES: dict[Any, Any] = {int: Whole()}
# An annotation without a type that keeps its values, and what helps.
REJECTED: dict[Any, str] = {}
# Generic types whose columns lose something here: by a column, the type that does not.
WIDER: dict[Any, Any] = {
    sa.BigInteger: lambda _: Whole(),
    sa.Integer: lambda _: WholeInteger(),
}
MIGRATION_OPTIONS: dict[str, Any] = {}
