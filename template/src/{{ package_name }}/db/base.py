"""The base class of all models: names of constraints, types of annotations."""

from datetime import UTC, datetime, time
from enum import Enum
from hashlib import sha256
from typing import Any, ClassVar, Literal, get_origin

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import DeclarativeBase, Mapper, TypeResolve
from sqlalchemy.orm.exc import MappedAnnotationError

from .config.environment import require
from .engine import UnfitValue
from .engine.types import DATETIME, JSON, REJECTED, TIME, TYPES, WIDER, TimeArithmetic

require(Mapper, "_server_default_plus_onupdate_propkeys")


class UTCDateTime(TimeArithmetic, sa.TypeDecorator[datetime]):
    """A time with a zone; drivers would read different times from one without."""

    impl = DATETIME
    cache_ok = True

    def coerce_compared_value(self, op: Any, value: Any) -> Any:
        """What is added to a time, such as a timedelta, has its own type."""
        if isinstance(value, datetime):
            return self
        return self.impl_instance.coerce_compared_value(op, value)

    def process_bind_param(self, value: datetime | None, dialect: Any) -> Any:
        if value and not value.tzinfo:
            raise UnfitValue("a time without a zone: write datetime.now(UTC)")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        # A column may have no zone; a driver may drop that of datetime.max.
        if value is None or value.tzinfo:
            return value  # type: ignore[no-any-return]
        return value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


class NaiveDateTime(UTCDateTime):
    """Of a column without a zone, also if it is declared with one: what has a zone is
    stored in UTC.
    """

    cache_ok = True  # each class says so, or its statements are compiled each time

    def process_bind_param(self, value: datetime | None, dialect: Any) -> Any:
        return value.astimezone(UTC) if value and value.tzinfo else value

    def process_result_value(self, value: Any, dialect: Any) -> datetime | None:
        return value  # type: ignore[no-any-return]


class LocalTime(TimeArithmetic, sa.TypeDecorator[time]):
    """A time of day; a column would drop its zone."""

    impl = TIME
    cache_ok = True

    def process_bind_param(self, value: time | None, dialect: Any) -> time | None:
        if value is not None and value.tzinfo:
            raise UnfitValue("a time of day with a zone: store a datetime")
        return value


class IntegerEnum(sa.TypeDecorator[Enum]):
    """Members whose values are integers, stored as these."""

    impl = sa.BigInteger
    cache_ok = True

    def __init__(self, members: type[Enum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else self.members(value).value

    def process_result_value(self, value: Any, dialect: Any) -> Enum | None:
        return None if value is None else self.members(value)


def text_enum(members: Any, length: int = 32) -> sa.Enum:
    """The text of the values: a new member that is no longer needs no migration.

    A native enum type cannot lose a member, and is slow to alter.
    """
    return sa.Enum(
        members,
        native_enum=False,
        length=length,
        values_callable=lambda members: [member.value for member in members],
        # Or any text could be stored, and its row never be read again.
        validate_strings=True,
    )


def _check_name(constraint: Any, _: sa.Table) -> str:
    """The name it has, or one made of its condition."""
    if isinstance(constraint.name, str):
        return constraint.name
    condition = constraint.sqltext.compile()
    return sha256(f"{condition}{condition.params}".encode()).hexdigest()[:8]


class Base(DeclarativeBase):
    # With a name for each constraint a later migration can drop it.
    metadata = sa.MetaData(
        naming_convention={
            "constraint_name": _check_name,
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UTCDateTime(),
        time: LocalTime(),
        Literal: text_enum(Enum),
        **TYPES,
    }


@event.listens_for(Base, "instrument_class", propagate=True)
def _adapt(mapper: Mapper[Any], _: type) -> None:
    # INSERT and UPDATE return what the database has computed: an attribute that is
    # loaded later would need an await.
    mapper.eager_defaults = True


@event.listens_for(Base, "mapper_configured", propagate=True)
def _load_computed(mapper: Mapper[Any], _: type) -> None:
    """A column_property() too: SQLAlchemy takes it for none of the database's."""
    own: Any = mapper
    own._server_default_plus_onupdate_propkeys |= {
        each.key
        for each in mapper.column_attrs
        if not each.deferred and not isinstance(each.expression, sa.Column)
    }


@event.listens_for(sa.Column, "after_parent_attach")
def _widen(column: Any, table: Any) -> None:
    """A generic type of SQLAlchemy keeps what the annotation keeps.

    One in capitals is the database's own, and stays. ArgumentError names a column that
    would lose digits.
    """
    if table.metadata is not Base.metadata:  # of a migration of before
        return
    kind = column.type
    number = kind.impl_instance if isinstance(kind, sa.TypeDecorator) else kind
    is_open = isinstance(number, sa.Numeric) and not (number.precision or number.scale)
    if is_open and sa.Numeric in REJECTED:
        raise sa.exc.ArgumentError(f"{column}: {REJECTED[sa.Numeric]}")
    if wider := WIDER.get(type(kind)):
        column.type = wider(column)
        if type(kind) is sa.DateTime:
            decorated = NaiveDateTime()
            decorated.impl = column.type
            column.type = decorated


@event.listens_for(Base, "resolve_type_annotation")
def _resolve(found: TypeResolve) -> sa.types.TypeEngine[Any] | None:
    """MappedAnnotationError names an annotation whose values a column would change."""
    kind: Any = found.resolved_type
    known = found.registry.type_annotation_map
    if {kind, found.raw_pep_593_type, found.raw_pep_695_type} & known.keys():
        return None
    column = f"{found.cls.__name__}.{found.key}"
    if kind in REJECTED:
        raise MappedAnnotationError(f"{column}: {REJECTED[kind]}")
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(column, kind)
    # A change in place is stored too, as that of `order.data["key"]`.
    if (get_origin(kind) or kind) is dict:
        return MutableDict.as_mutable(JSON.copy())
    if (get_origin(kind) or kind) is list:
        return MutableList.as_mutable(JSON.copy())
    return None


def _enum(column: str, members: type[Enum]) -> sa.types.TypeEngine[Any]:
    values = [member.value for member in members]
    if all(isinstance(value, int) for value in values):
        return IntegerEnum(members)
    if all(isinstance(value, str) for value in values):
        return text_enum(members, max(32, *map(len, values)))
    raise MappedAnnotationError(
        f"{column}: the values of {members.__name__} are stored: let all of them be"
        " str, or all int."
    )
