"""Ordinary values: what is stored is what was meant, and an error says whose it is."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel
from shop.db import Database
from shop.db.base import UTCDateTime
from shop.db.config.backend import DIALECT, DRIVER
from shop.db.engine.types import TYPES, WIDER
from shop.db.errors import classify, safe_message
from sqlalchemy import (
    Column,
    Date,
    Interval,
    LargeBinary,
    MetaData,
    String,
    Table,
    Uuid,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.types import BigInteger, Integer


def only(is_concerned: bool) -> Any:
    """No test where its subject is not: a service has none that is skipped."""
    return (lambda test: test) if is_concerned else (lambda _: None)


CANARY = "canary"
EAST = timezone(timedelta(hours=2))
DAY = timedelta(days=1)
DATE = datetime(2026, 1, 1, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Taste(StrEnum):
    SWEET = "sweet"


class Thing(BaseModel):
    name: str = CANARY


def whole(kind: Any) -> Any:
    return WIDER[kind](Column(kind())) if kind in WIDER else kind()


VALUES = Table(
    "some_values",
    MetaData(),
    Column("id", TYPES.get(int, BigInteger()), primary_key=True),
    Column("key", Uuid()),
    Column("name", String(200)),
    Column("at", UTCDateTime()),
    Column("made", UTCDateTime(), server_default=func.now()),
    Column("day", whole(Date)),
    Column("span", whole(Interval)),
    Column("content", LargeBinary(200)),
    Column("count", whole(Integer)),
    Column("cents", TYPES.get(int, BigInteger())),
)
C = VALUES.c


@pytest.fixture(autouse=True)
async def table(database: Database) -> AsyncIterator[None]:
    async with database.writes.begin() as connection:
        await connection.run_sync(VALUES.create)
    yield
    async with database.writes.begin() as connection:
        await connection.run_sync(VALUES.drop)


async def write(database: Database, statement: Any, *values: Any) -> Any:
    async with database.write() as session:
        return await session.execute(statement, *values)


async def read(database: Database, statement: Any) -> Any:
    async with database.read() as session:
        return await session.scalar(statement)


async def error_of(database: Database, statement: Any, *values: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await write(database, statement, *values)
    return caught.value


def words(error: BaseException | None) -> str:
    """What a traceback has of it."""
    return f"{error} {words(error.__cause__ or error.__context__)}" if error else ""


@only(DRIVER == "asyncpg")  # others send it, or refuse it
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", 5),
        ("name", Thing()),
        ("day", f"2026-01-01 {CANARY}"),
        ("content", CANARY),
        ("cents", CANARY),
    ],
)
async def test_value_of_another_type_is_a_bug(
    database: Database, column: str, value: Any
) -> None:
    for rows in ({"id": 1, column: value}, [{"id": n, column: value} for n in (1, 2)]):
        error = await error_of(database, insert(VALUES), rows)

        assert classify(error) is None
        assert CANARY not in words(error)
        assert "query argument $" in str(error)


async def test_time_without_a_zone_is_named_in_the_log(database: Database) -> None:
    naive = DATE.replace(tzinfo=None)
    error = await error_of(database, insert(VALUES).values(id=1, at=naive))

    assert classify(error) == "invalid-value"
    assert safe_message(error) == (
        "a parameter cannot be sent: a time without a zone: write datetime.now(UTC)"
    )


SEARCHES: dict[str, tuple[str, list[str]]] = {
    "postgresql": (
        "SELECT to_tsvector('english', 'tea') @@ to_tsquery('english', :query)",
        [f"{CANARY} &", f"({CANARY}", f"!{CANARY} &", f"{CANARY} ' ", f"{CANARY}\\"],
    ),
    "mysql": (
        "SELECT id FROM searched WHERE MATCH (name) AGAINST (:query IN BOOLEAN MODE)",
        ["+", f"{CANARY}*)", f"+{CANARY} @", f"({CANARY}"],
    ),
    "sqlite": (
        "SELECT name FROM searched WHERE searched MATCH :query",
        [f"{CANARY} AND", f"{CANARY}:tea", f'"{CANARY}', f"*{CANARY}", f"-{CANARY}"],
    ),
}
TABLES = {
    "mysql": "CREATE TABLE searched (id INT PRIMARY KEY, name VARCHAR(99),"
    " FULLTEXT (name)) ENGINE=InnoDB",
    "sqlite": "CREATE VIRTUAL TABLE searched USING fts5(name)",
}


async def test_text_that_is_no_search_is_an_invalid_value(database: Database) -> None:
    statement, texts = SEARCHES[DIALECT]
    if DIALECT in TABLES:
        await write(database, text(TABLES[DIALECT]))
    try:
        for each in texts:
            error = await error_of(database, text(statement), {"query": each})
            assert classify(error) == "invalid-value", each
            assert CANARY not in safe_message(error)
        error = await error_of(database, text(f"SELECT {CANARY} ({statement}"))
        assert classify(error) is None, "a bug in the statement"
    finally:
        if DIALECT in TABLES:
            await write(database, text("DROP TABLE searched"))


@only(DIALECT == "postgresql")  # JSONPATH
@pytest.mark.parametrize("path", ["$.", "$ ? (", "@", "$[last", "last", "$.a[canary"])
async def test_text_that_is_no_path_is_an_invalid_value(
    database: Database, path: str
) -> None:
    statement = text("SELECT CAST(CAST(:path AS TEXT) AS JSONPATH)")
    error = await error_of(database, statement, {"path": path})
    assert classify(error) == "invalid-value"
    assert CANARY not in safe_message(error)


@only(DIALECT == "mysql")  # the drivers write text of values
async def test_parameter_of_an_own_statement_is_what_was_meant(
    database: Database,
) -> None:
    class Moment(datetime):
        """As a library has it."""

        def __str__(self) -> str:
            return "a moment"

    at = datetime(2026, 1, 1, 12, tzinfo=EAST)
    same = Moment(2026, 1, 1, 12, tzinfo=EAST)
    await write(database, insert(VALUES), [{"id": 1, "at": at}, {"id": 2, "at": same}])
    for value in (at, same):
        await write(
            database,
            text("UPDATE some_values SET at = :at WHERE id = 1"),
            {"at": value},
        )
        assert list(await write(database, select(C.at))) == [(at,), (at,)]
    for value, stored in ((Colour.RED, "red"), (Taste.SWEET, "sweet")):
        await write(database, update(VALUES).values(name=case((C.id == 1, value))))
        assert await read(database, select(C.name).where(C.id == 1)) == stored
    key = uuid4()
    await write(database, text("UPDATE some_values SET `key` = :key"), {"key": key})
    found = text("SELECT COUNT(*) FROM some_values WHERE `key` = :key")
    assert (await write(database, found, {"key": key})).scalar() == 2
    assert await read(database, select(C.key).where(C.id == 1)) == key
    for unknown in (Thing(), {"a": 1}, object()):
        statement = text("UPDATE some_values SET name = :name")
        error = await error_of(database, statement, {"name": unknown})
        assert classify(error) is None
        assert "a parameter of the type" in str(error)
        assert CANARY not in words(error)


@only(DRIVER == "psycopg")  # the driver would send the name
async def test_member_of_an_enum_is_its_value(database: Database) -> None:
    await write(database, insert(VALUES), {"id": 1})
    member = case((C.id == 1, Colour.RED), else_=None)
    await write(database, update(VALUES).values(name=member))
    assert await read(database, select(C.name)) == "red"


async def test_time_of_the_server_is_found_by_itself(database: Database) -> None:
    await write(database, insert(VALUES), {"id": 1, "at": DATE})
    for column in (C.made, C.at):
        at = await read(database, select(column))
        assert await read(database, select(C.id).where(column == at)) == 1
        assert not await read(database, select(C.id).where(column < at))
        later = at + timedelta(microseconds=1)
        assert await read(database, select(C.id).where(column < later)) == 1


@only(DIALECT == "sqlite")  # compares texts
async def test_timedelta_is_found_among_older_rows(database: Database) -> None:
    for span in (timedelta(hours=1), timedelta(microseconds=5), None):
        await write(database, insert(VALUES), {"id": 1, "span": span})
        written = "1970-01-01 01:00:00.000000"
        if span != timedelta(hours=1):
            written = span and "1970-01-01 00:00:00.000005"
        assert await read(database, select(cast(C.span, String))) == written
        assert await read(database, select(C.span)) == span
        await write(database, delete(VALUES))


@only(DIALECT != "postgresql")  # which adds times
def test_no_sum_of_a_time_is_built() -> None:
    for build in (
        lambda: C.at + DAY < datetime.now(UTC),
        lambda: C.at - DAY,
        lambda: C.day + DAY,
        lambda: C.span + DAY,
        lambda: DAY + C.at,
        lambda: C.at - C.made,
    ):
        with pytest.raises(TypeError, match="compute the bound in Python"):
            build()


@only(DIALECT == "postgresql")  # adds times
async def test_sum_of_a_time_is_right(database: Database) -> None:
    await write(database, insert(VALUES), {"id": 1, "at": DATE, "day": DATE.date()})
    assert await read(database, select(C.at + DAY)) == DATE + DAY
    assert await read(database, select(C.id).where(C.at + DAY > DATE)) == 1


async def test_sum_of_whole_numbers_is_one(database: Database) -> None:
    rows = [{"id": n, "count": 2, "cents": 450} for n in (1, 2)]
    await write(database, insert(VALUES), rows)
    for total, expected in (
        (func.sum(C.cents), 900),
        (func.sum(C.count), 4),
        (func.sum(C.count * C.cents), 1800),
        (func.coalesce(func.sum(C.cents), 0), 900),
        (func.max(C.cents), 450),
    ):
        found = await read(database, select(total))
        assert found == expected
        assert type(found) is int
    assert await read(database, select(func.sum(C.cents)).where(C.id > 9)) is None
    half = await read(database, select(C.cents * Decimal("0.5")).where(C.id == 1))
    assert half == 225
