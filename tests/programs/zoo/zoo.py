"""Models of each kind that a migration has to write, and to find unchanged afterwards.

It becomes a module of the service, beside models.py.
"""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.types import UserDefinedType

from .db import Base
from .db.config.backend import DIALECT

IS_POSTGRESQL = DIALECT == "postgresql"
IS_MYSQL = DIALECT == "mysql"
IS_SQLITE = DIALECT == "sqlite"


class Colour(Enum):
    RED = "red"
    LIGHT_BLUE = "light blue"
    QUOTED = "it's"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Money(sa.TypeDecorator[Decimal]):
    """A type of the service, of one type in all databases."""

    impl = sa.Numeric(18, 4)
    cache_ok = True


class Words(sa.TypeDecorator[list[str]]):
    """One that has a type for each dialect."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, separator: str = "'") -> None:
        super().__init__()
        self.separator = separator

    def load_dialect_impl(self, dialect: Any) -> Any:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.Text())
        return dialect.type_descriptor(sa.String(500))

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002
        return self.separator.join(value) if value is not None else None


class Moment(sa.TypeDecorator[datetime]):
    """One over a class that the driver has of its own."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> Any:
        return dialect.type_descriptor(sa.DateTime(timezone=True))


class Small(UserDefinedType[int]):
    """One that SQLAlchemy does not know."""

    cache_ok = True

    def __init__(self, unused: int = 0) -> None:
        self.unused = unused

    def get_col_spec(self, **_: Any) -> str:
        return "SMALLINT"


class Types(Base):
    __tablename__ = "zoo_types"
    __table_args__ = ({"comment": 'It\'s a "table" of 100 % each: type'},)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    integer: Mapped[int]
    small: Mapped[int] = mapped_column(sa.SmallInteger)
    normal: Mapped[int] = mapped_column(sa.Integer)
    boolean: Mapped[bool]
    floating: Mapped[float]
    double: Mapped[float] = mapped_column(sa.Double)
    real: Mapped[float] = mapped_column(sa.Float(24))
    exact: Mapped[Decimal] = mapped_column(sa.Numeric(18, 6))
    text: Mapped[str] = mapped_column(sa.Text)
    short: Mapped[str] = mapped_column(sa.String(20), comment="an apostrophe: '")
    fixed: Mapped[str] = mapped_column(sa.CHAR(3))
    wide: Mapped[str] = mapped_column(sa.Unicode(30))
    moment: Mapped[datetime]
    optional: Mapped[datetime | None]
    naive: Mapped[datetime] = mapped_column(sa.DateTime)
    day: Mapped[date]
    hour: Mapped[time]
    period: Mapped[timedelta]
    raw: Mapped[bytes]
    fixed_raw: Mapped[bytes] = mapped_column(sa.LargeBinary(16))
    document: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    colour: Mapped[Colour]
    level: Mapped[Level] = mapped_column(sa.Enum(Level, native_enum=False, length=8))
    checked: Mapped[Colour] = mapped_column(
        sa.Enum(
            Colour,
            native_enum=False,
            create_constraint=True,
            name="checked_colour",
            length=32,
        )
    )
    money: Mapped[Decimal] = mapped_column(Money)
    words: Mapped[list[str]] = mapped_column(Words(separator="'"))
    own_moment: Mapped[datetime] = mapped_column(Moment)
    own: Mapped[int] = mapped_column(Small(3))
    varies: Mapped[str] = mapped_column(
        sa.Text().with_variant(sa.String(40), "mysql", "mariadb", "sqlite")
    )


class Native(Base):
    """Enum types of the server, the same one in two tables."""

    __tablename__ = "zoo_native"

    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[Colour] = mapped_column(sa.Enum(Colour, name="colour"))
    other: Mapped[str] = mapped_column(
        sa.Enum("a", "b", name="zoo_letter"), server_default="b"
    )


class NativeToo(Base):
    __tablename__ = "zoo_native_too"

    id: Mapped[int] = mapped_column(primary_key=True)
    colour: Mapped[Colour | None] = mapped_column(sa.Enum(Colour, name="colour"))


class Defaults(Base):
    __tablename__ = "zoo_defaults"

    id: Mapped[int] = mapped_column(primary_key=True)
    zero: Mapped[int] = mapped_column(server_default="0")
    zero_text: Mapped[int] = mapped_column(server_default=sa.text("0"))
    negative: Mapped[int] = mapped_column(server_default=sa.text("-1"))
    sum: Mapped[int] = mapped_column(server_default=sa.text("(1 + 1)"))
    literal: Mapped[int] = mapped_column(server_default=sa.literal(7))
    half: Mapped[Decimal] = mapped_column(sa.Numeric(6, 3), server_default="0.5")
    third: Mapped[float] = mapped_column(sa.Double, server_default=sa.text("0.333"))
    yes: Mapped[bool] = mapped_column(server_default=sa.true())
    no: Mapped[bool] = mapped_column(server_default=sa.false())
    yes_text: Mapped[bool] = mapped_column(server_default=sa.text("true"))
    no_text: Mapped[bool] = mapped_column(server_default="0")
    yes_one: Mapped[bool] = mapped_column(server_default="1")
    empty: Mapped[str] = mapped_column(sa.String(20), server_default="")
    word: Mapped[str] = mapped_column(sa.String(20), server_default="new")
    number_word: Mapped[str] = mapped_column(sa.String(20), server_default="1")
    apostrophe: Mapped[str] = mapped_column(sa.String(20), server_default="it's")
    percent: Mapped[str] = mapped_column(sa.String(20), server_default="100 %")
    colon: Mapped[str] = mapped_column(sa.String(20), server_default="a:b ::c")
    backslash: Mapped[str] = mapped_column(sa.String(20), server_default="a\\b")
    umlaut: Mapped[str] = mapped_column(sa.String(20), server_default="grün")
    quoted: Mapped[str] = mapped_column(sa.String(20), server_default=sa.text("'q'"))
    upper: Mapped[str] = mapped_column(sa.String(20), server_default="NULL")
    function: Mapped[str] = mapped_column(
        sa.String(20), server_default=sa.text("(lower('ABC'))")
    )
    long: Mapped[str] = mapped_column(
        sa.String(200),
        server_default="A sentence with a comma, (parentheses) and a default",
    )
    absent: Mapped[str | None] = mapped_column(sa.String(20), server_default=sa.null())
    choice: Mapped[Colour] = mapped_column(server_default="light blue")
    now: Mapped[datetime] = mapped_column(
        server_default=sa.text("CURRENT_TIMESTAMP(6)") if IS_MYSQL else sa.func.now()
    )
    current: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.func.current_timestamp()
    )
    func_now: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.func.now()
    )
    fixed: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.text("'2020-01-01 00:00:00'")
    )
    day: Mapped[date] = mapped_column(server_default="2020-01-01")
    document: Mapped[dict[str, Any]] = mapped_column(
        sa.JSON, server_default=sa.text("('{}')") if IS_MYSQL else "{}"
    )
    listed: Mapped[list[Any]] = mapped_column(
        sa.JSON, server_default=sa.text("""('[1, {"a": "it''s"}]')""")
    )


class Computed(Base):
    __tablename__ = "zoo_computed"

    id: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int]
    name: Mapped[str] = mapped_column(sa.String(50))
    area: Mapped[int] = mapped_column(sa.Computed("width * width", persisted=True))
    title: Mapped[str] = mapped_column(
        sa.String(50), sa.Computed("upper(name)", persisted=True)
    )


class Identity(Base):
    __tablename__ = "zoo_identity"

    id: Mapped[int] = mapped_column(sa.Identity(always=True), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50))


class Composite(Base):
    __tablename__ = "zoo_composite"

    tenant: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    code: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    day: Mapped[date]

    __table_args__ = (
        sa.UniqueConstraint("tenant", "day"),
        sa.UniqueConstraint("code", name="zoo_code_once"),
        sa.CheckConstraint("tenant > 0", name="tenant_positive"),
        sa.CheckConstraint("code <> 'a%b:c'", name="code_plain"),
    )


class Part(Base):
    __tablename__ = "zoo_part"

    id: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[int | None]
    code: Mapped[str | None] = mapped_column(sa.String(20))
    parent_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("zoo_part.id", ondelete="SET NULL"), index=True
    )
    type_id: Mapped[UUID | None] = mapped_column(
        sa.ForeignKey("zoo_types.id", ondelete="RESTRICT")
    )

    parent: Mapped["Part"] = relationship(remote_side="Part.id", lazy="raise")

    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["tenant", "code"],
            ["zoo_composite.tenant", "zoo_composite.code"],
            onupdate="CASCADE",
            ondelete="CASCADE",
            name="zoo_part_of",
        ),
    )


class Hen(Base):
    """Two tables that need each other."""

    __tablename__ = "zoo_hen"

    id: Mapped[int] = mapped_column(primary_key=True)
    egg_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("zoo_egg.id", use_alter=True)
    )


class Egg(Base):
    __tablename__ = "zoo_egg"

    id: Mapped[int] = mapped_column(primary_key=True)
    hen_id: Mapped[int] = mapped_column(sa.ForeignKey("zoo_hen.id"))


class Indexed(Base):
    __tablename__ = "zoo_indexed"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    other: Mapped[str] = mapped_column(sa.String(50), index=True)
    place: Mapped[int]
    taken: Mapped[int | None]

    __table_args__ = (
        sa.Index(None, "place", "other"),
        sa.Index("zoo_place_down", sa.desc("place"), "id"),
        sa.Index("zoo_taken_once", "taken", "place", unique=True),
    )


class Versioned(Base):
    """One that the server stamps."""

    __tablename__ = "zoo_versioned"

    id: Mapped[int] = mapped_column(primary_key=True)
    updated_at: Mapped[datetime] = mapped_column(
        default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC)
    )


class Pushed(Base):
    """JSON that a text() would take for parameters, in a default and in a check."""

    __tablename__ = "zoo_pushed"

    id: Mapped[int] = mapped_column(primary_key=True)
    document: Mapped[str] = mapped_column(
        sa.String(50), server_default='{"a":1, ":b": "50%"}'
    )
    text: Mapped[str] = mapped_column(
        sa.String(50), server_default=sa.text("""'{"a"\\:1}'""")
    )
    hour: Mapped[str] = mapped_column(sa.String(5), server_default="12:30")

    __table_args__ = (sa.CheckConstraint(r"hour <> ' \:x %'", name="hour"),)


if IS_POSTGRESQL:
    from .zoo_postgresql import *  # noqa: F403
elif IS_MYSQL:
    from .zoo_mysql import *  # noqa: F403
else:
    from .zoo_sqlite import *  # noqa: F403
