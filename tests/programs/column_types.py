"""Stores the extreme values of each annotation that a model may have, and prints what
comes back changed, what is rejected, and what an attribute needs after a flush.
"""

import asyncio
import json
import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Any, Literal
from uuid import UUID

from shop.db import Base, open_database
from shop.db.config.backend import DIALECT
from shop.settings import Settings
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Interval,
    Numeric,
    String,
    Table,
    Time,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Mapped, column_property, mapped_column, relationship


class Colour(Enum):
    RED = "red"
    LONG = "x" * 40


class Level(StrEnum):
    LOW = "low"


class Priority(IntEnum):
    LAST = -(2**31)
    FIRST = 2**40


class Right(IntFlag):
    READ = 1
    WRITE = 2


class Plain(Enum):
    ONE = 1


MINUTES = timezone(timedelta(hours=5, minutes=30))
LONG = "ä€😀" * 30_000
NESTED = {"a": [1, 2**53 + 1, 0.1, None, True, "ä😀"], "b": {}}
VALUES: dict[Any, list[Any]] = {
    bool: [True, False],
    bytes: [b"", b"'\\\0%s", bytes(range(256)), b"x" * 100_000],
    date: [date.min, date.max],
    datetime: [
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
        datetime(2026, 3, 29, 2, 30, 0, 1, MINUTES),
    ],
    dict[str, Any]: [{}, NESTED],
    float: [0.1 + 0.2, math.pi * 1e300, 1.7976931348623157e308, 5e-324],
    int: [2**63 - 1, -(2**63)],
    list[str]: [[], ["ä😀", "a,b"]],
    str: ["", " a ", "a\\'\"%s:b", LONG],
    time: [time.min, time.max, time(1, 2, 3, 4)],
    timedelta: [timedelta(microseconds=1), timedelta(-1, 5, 7), timedelta(900_000)],
    Colour: [*Colour],
    Level: [*Level],
    Literal["on", "off"]: ["on"],
    Plain: [*Plain],
    Priority: [*Priority],
    Right: [Right.READ, Right.READ | Right.WRITE, Right(0)],
    UUID: [UUID(int=0), UUID(int=2**128 - 1)],
}
WRONG: list[tuple[Any, Any]] = [
    (datetime, datetime(2026, 1, 1)),  # noqa: DTZ001
    (time, time(1, tzinfo=UTC)),
    (Colour, "grey"),
    (Literal["on", "off"], "of"),
    (Priority, 3),
]
if DIALECT == "postgresql":
    VALUES[Decimal] = [Decimal("9.99"), Decimal("1e-40"), Decimal("12345678901234.5")]
    VALUES[timedelta] += [timedelta.min, timedelta.max]
if DIALECT != "mysql":
    VALUES[float] += [math.inf, -math.inf]
else:
    WRONG += [(float, -math.inf), (float, math.nan)]
if DIALECT == "sqlite":
    WRONG += [(float, math.nan)]


def model(name: str, annotation: Any, **column: Any) -> Any:
    return type(
        f"Thing{name}",
        (Base,),
        {
            "__tablename__": f"things_{name}",
            "__annotations__": {"id": Mapped[int], "value": Mapped[annotation | None]},
            "id": mapped_column(primary_key=True),
            **column,
        },
    )


MODELS = {
    annotation: model(str(number), annotation)
    for number, annotation in enumerate(VALUES)
}


MOMENT = datetime(2026, 3, 29, 2, 30, 0, 1, MINUTES)
NAIVE = MOMENT.astimezone(UTC).replace(tzinfo=None)
DECLARED: list[tuple[Any, Any, Any]] = [
    (DateTime(), NAIVE, NAIVE),
    (Float(), 0.1 + 0.2, 0.1 + 0.2),
    (Interval(), timedelta(microseconds=1), timedelta(microseconds=1)),
    (Time(), time(1, 2, 3, 4), time(1, 2, 3, 4)),
]
if DIALECT == "postgresql":
    DECLARED += [(DateTime(timezone=True), MOMENT, MOMENT)]
else:
    kinds = DateTime(), DateTime(timezone=True)
    DECLARED += [(kind, MOMENT, NAIVE) for kind in kinds]
DECLARED_MODELS = [
    model(
        f"declared_{number}",
        type(value),
        id=mapped_column(BigInteger, primary_key=True),
        value=mapped_column(kind),
    )
    for number, (kind, value, _) in enumerate(DECLARED)
]


PLAIN = Table(
    "plain",
    Base.metadata,
    Column("id", BigInteger, primary_key=True),
    Column("value", DateTime(timezone=True)),
)


class Parent(Base):
    __tablename__ = "parents"
    # Does not take away what Base says of each mapper.
    __mapper_args__ = {"confirm_deleted_rows": False}  # noqa: RUF012

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    loud: Mapped[str] = column_property(func.upper(name))
    price: Mapped[Decimal | None] = mapped_column(Numeric(38, 2), default=None)
    made: Mapped[datetime] = mapped_column(server_default=func.now())
    changed: Mapped[datetime | None] = mapped_column(onupdate=func.now())
    children: Mapped[list["Child"]] = relationship(
        back_populates="parent", cascade="all, delete-orphan", passive_deletes=True
    )


class Child(Base):
    __tablename__ = "children"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id", ondelete="CASCADE"))
    parent: Mapped[Parent] = relationship(back_populates="children", lazy="raise")


async def stored(database: Any, thing: Any, value: Any) -> Any:
    """The value as an entity and as a column, and whether each is what was stored."""
    async with database.write() as session:
        row = thing(value=value)
        session.add(row)
        await session.flush()
    async with database.read() as session:
        entity = (await session.scalars(select(thing).where(thing.id == row.id))).one()
        column = await session.scalar(select(thing.value).where(thing.id == row.id))
        found = value is None or is_json(value) or value == LONG
        if not found:
            query = select(thing.id).where(thing.value == value)
            found = row.id in (await session.scalars(query)).all()
    return entity.value, column, found


async def changed_by_declared_types(database: Any) -> list[str]:
    """With the generic types of SQLAlchemy in place of an annotation's own."""
    changed = []
    for number, (_, value, expected) in enumerate(DECLARED):
        entity, column, _ = await stored(database, DECLARED_MODELS[number], value)
        if (entity, column) != (expected, expected):
            changed.append(f"{value!r} {entity!r}")
    *_, expected = DECLARED[-1]
    async with database.write() as session:
        await session.execute(insert(PLAIN).values(value=MOMENT))
        if (value := await session.scalar(select(PLAIN.c.value))) != expected:
            changed.append(f"in a plain table {value!r}")
    return changed


def is_json(value: Any) -> bool:
    return isinstance(value, dict | list)


def is_same(value: Any, other: Any) -> bool:
    zone = not isinstance(value, datetime) or other.utcoffset() is not None
    return value == other and isinstance(other, type(value)) and zone


async def changed_values(database: Any) -> list[str]:
    changed = []
    for annotation, values in VALUES.items():
        for value in (*values, None):
            entity, column, found = await stored(database, MODELS[annotation], value)
            if not (is_same(value, entity) and is_same(value, column) and found):
                changed.append(f"{annotation} {value!r:.60} {entity!r:.60} {found}")
    return changed


async def accepted_values(database: Any) -> list[str]:
    accepted = []
    for annotation, value in WRONG:
        try:
            await stored(database, MODELS[annotation], value)
        except StatementError as error:
            if not isinstance(error.orig, ValueError | LookupError):
                raise
        else:
            accepted.append(f"{annotation} {value!r}")
    return accepted


async def null_values(database: Any) -> list[int]:
    """The number of NULLs in each column: that of JSON is one of SQL, too."""
    async with database.read() as session:
        return [
            await session.scalar(
                select(func.count()).select_from(thing).where(thing.value.is_(None))
            )
            for thing in MODELS.values()
        ]


async def change_in_place(database: Any) -> Any:
    things, names = MODELS[dict[str, Any]], MODELS[list[str]]
    async with database.write() as session:
        thing, name = things(value={"a": 1}), names(value=["a"])
        session.add_all([thing, name])
        await session.flush()
        thing.value["b"] = 2
        name.value.append("b")
    async with database.read() as session:
        return [
            (await session.get(things, thing.id)).value,
            (await session.get(names, name.id)).value,
        ]


async def after_flush(database: Any) -> list[bool]:
    """Whether the attributes that the database sets are there without an await."""
    async with database.write() as session:
        parent = Parent(name="ada", children=[Child(), Child()])
        session.add(parent)
        await session.flush()
        made = parent.made
        parent.name = "eve"
        await session.flush()
        present = [made == parent.made, parent.changed is not None]
        present += [parent.loud == "EVE"]
    async with database.write() as session:
        await session.delete(await session.get(Parent, parent.id))
    async with database.read() as session:
        rows = [await session.scalar(select(func.count(t.id))) for t in (Parent, Child)]
    return [*present, rows == [0, 0]]


async def compare_times(database: Any) -> list[bool]:
    """Comparisons and sums with the type of Base, in the database."""
    now = datetime.now(UTC)
    async with database.write() as session:
        session.add(Parent(name="ada", made=now, changed=now))
        await session.flush()
        ages = [Parent.made == Parent.changed, Parent.made < now + timedelta(days=1)]
        if DIALECT == "postgresql":
            ages += [Parent.made + timedelta(days=1) > now]
            ages += [Parent.made > func.now() - timedelta(days=1)]
        found = [await session.scalar(select(func.count()).where(age)) for age in ages]
        latest = await session.scalar(select(func.max(Parent.made)))
        await session.execute(update(Parent).values(made=now - timedelta(days=1)))
        earlier = await session.scalar(select(Parent.made))
        await session.execute(text("DELETE FROM parents"))
    return [found == [1] * len(ages), latest == now, earlier < now]


def rejected(annotation: Any, **column: Any) -> str:
    try:
        model(f"_{annotation.__name__}{len(column)}", annotation, **column)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Mixed(Enum):
    ONE = 1
    TWO = "two"


async def main() -> None:
    async with open_database(Settings.load()) as database:
        async with database.writes.connect() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.commit()
        outcome = {
            "accepted": await accepted_values(database),
            "after flush": await after_flush(database),
            "changed": await changed_values(database),
            "changed by declared types": await changed_by_declared_types(database),
            "in place": await change_in_place(database),
            "nulls": await null_values(database),
            "times": await compare_times(database),
        }
    outcome |= {
        "rejected": [
            rejected(Mixed),
            rejected(Decimal),
            rejected(Decimal, value=mapped_column(Numeric)),
        ]
    }
    print(json.dumps(outcome))


asyncio.run(main())
