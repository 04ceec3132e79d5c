"""Column types for annotations of models, where those of SQLAlchemy lose something;
and types of parameters.
"""

import json
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from operator import add, sub
from time import struct_time
from types import NoneType
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from .. import json_text as any_dialect
from . import UnfitValue

# Without fsp=6, whole seconds.
DATETIME = mysql.DATETIME(fsp=6)
TIME = mysql.TIME(fsp=6)
JSON = sa.JSON(none_as_null=True)

DECIMAL = 246  # what the protocol calls it

EPOCH = datetime(1970, 1, 1)
# May be an integer that JSON of MySQL does not hold.
LONG_NUMBER = re.compile(r"\d{19}")


def json_text(value: Any) -> str:
    """MySQL would make a double of an integer above 64 bits, and drop digits."""
    text = any_dialect.json_text(value)
    if LONG_NUMBER.search(text):
        json.loads(text, parse_int=_check_integer)
    return text


def _check_integer(digits: str) -> int:
    if not -(2**63) <= (number := int(digits)) < 2**64:
        raise OverflowError("an integer above 64 bits")
    return number


@sa.event.listens_for(sa.Table, "after_parent_attach")
def _adapt(own: sa.Table, _: sa.MetaData) -> None:
    # By default "Ada" = "ada", and a unique key takes only one of them.
    own.dialect_kwargs["mysql_collate"] = "utf8mb4_bin"
    for column in own.columns:
        if column.computed is not None:
            column.nullable = True  # MariaDB has no NOT NULL for such a column


# MySQL would add digits: 20260131 and 1 are 20260132.
NO_ARITHMETIC = (
    "MySQL cannot add to a time: compute the bound in Python, as in"
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


class Duration(TimeArithmetic, sa.TypeDecorator[timedelta]):
    """As SQLAlchemy stores it, by a time after 1970, but with its microseconds."""

    impl = DATETIME
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Any) -> Any:
        return None if value is None else EPOCH + value

    def process_result_value(self, value: Any, dialect: Any) -> timedelta | None:
        return None if value is None else value - EPOCH


class Double(sa.TypeDecorator[float]):
    """MySQL has no infinity and no NaN."""

    impl = sa.Double
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Any) -> float | None:
        if value is not None and not isfinite(value):
            raise UnfitValue(f"{value} cannot be stored: write a finite number")
        return value


class Day(TimeArithmetic, sa.TypeDecorator[date]):
    impl = sa.Date
    cache_ok = True


# Types that the drivers know; of others they would send the str().
SENT = {NoneType, bool, int, float, Decimal, str, bytes, date, time, timedelta}
SENT |= {tuple, list, set, frozenset, struct_time, bytearray}


def plain(value: Any) -> Any:
    """The value in a type of SENT, a time with a zone in UTC; else a TypeError."""
    match value:
        case UUID():  # also of a UUID of MariaDB, which takes it without a dash
            return value.hex
        case Enum():
            return value.value
        case datetime():
            if value.tzinfo:
                value = value.astimezone(UTC)
            if type(value) is datetime:
                return value
            return datetime.combine(plain(value.date()), plain(value.time()))
        case date():
            return date(value.year, value.month, value.day)
        case time():
            return time(value.hour, value.minute, value.second, value.microsecond)
        case timedelta():
            return timedelta(value.days, value.seconds, value.microseconds)
        case str() | int() | float() | Decimal():
            return next(each for each in type(value).mro() if each in SENT)(value)
    raise TypeError(f"a parameter of the type {type(value).__name__}: convert it")


class CheckedParameters:
    """Mixin of a driver's connection: what the server has not is not sent.

    It would take bytes that Python has put into a text for characters.
    """

    def escape(self, value: Any, *mapping: Any) -> Any:
        if type(value) not in SENT:
            value = plain(value)
        if isinstance(value, str):
            value.encode()
        elif isinstance(value, (float, Decimal)) and not isfinite(value):
            raise OverflowError("not a finite number")
        parent: Any = super()
        return parent.escape(value, *mapping)


def _time(column: sa.Column[Any]) -> Any:
    # A default of the server, such as now(), has to have as many digits.
    return column.type if column.server_default else DATETIME


def _float(column: sa.Column[Any]) -> Any:
    kind: Any = column.type
    return kind if kind.precision or kind.asdecimal else Double()


TYPES: dict[Any, Any] = {
    bytes: mysql.LONGBLOB(),  # a BLOB ends at 64 kB, as a TEXT does
    float: Double(),
    int: Whole(),
    str: mysql.LONGTEXT(),
    timedelta: Duration(),
}
NO_DIGITS = (
    "MySQL drops what follows the point unless the column says how many digits:"
    " mapped_column(Numeric(12, 2))."
)
# An annotation or a type that does not keep its values, and what helps.
REJECTED: dict[Any, str] = {Decimal: NO_DIGITS, sa.Numeric: NO_DIGITS}
# Generic types whose columns lose something here: by a column, the type that does not.
WIDER: dict[Any, Any] = {
    sa.BigInteger: lambda _: Whole(),
    sa.Date: lambda _: Day(),
    sa.DateTime: _time,  # microseconds, and the zone: see base.py
    sa.Float: _float,
    sa.Integer: lambda _: WholeInteger(),
    sa.Interval: lambda _: Duration(),
    sa.Time: lambda _: TIME,
}
MIGRATION_OPTIONS: dict[str, Any] = {}
