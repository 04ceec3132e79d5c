"""Values that their column cannot hold, through each kind of session, and statements
that their database rejects for what the client has sent.

The program prints the answers, by column and by way to the database.
"""

import json
import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import uvloop
from fastapi import Request
from rejections import REJECTIONS, SETUP
from rows import BODIES, CANARY, ONE, current, laboratory, serving
from shop.db import Base, Read, Write, bulk_insert
from shop.db.config.backend import DIALECT
from shop.web.logs import configure_logging
from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    SmallInteger,
    String,
    delete,
    event,
    func,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.orm import Mapped, load_only, mapped_column

# What an own statement does with a text.
CAST = {"postgresql": "CAST(CAST(:value AS TEXT) AS {})"}.get(DIALECT, ":value")
OWN = {
    "kind in words": "kind = " + CAST.format("kind"),
    "number in words": "short = " + CAST.format("INTEGER"),
    "day in words": "day = " + CAST.format("DATE"),
}


class Kind(StrEnum):
    TEA = "tea"


class Parcel(Base):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    short: Mapped[int | None] = mapped_column(SmallInteger)
    long: Mapped[int | None] = mapped_column(Integer)
    name: Mapped[str | None] = mapped_column(String(10))
    price: Mapped[Decimal | None] = mapped_column(Numeric(6, 2))
    weight: Mapped[float | None] = mapped_column(Float)
    day: Mapped[date | None] = mapped_column(Date)
    span: Mapped[timedelta | None] = mapped_column(Interval)
    kind: Mapped[Kind | None] = mapped_column(Enum(Kind, name="kind"))
    content: Mapped[bytes | None] = mapped_column(LargeBinary(10))
    label: Mapped[dict | None] = mapped_column(JSON)


def nested(levels: int) -> dict:
    value = {}
    for _ in range(levels):
        value = {"in": value}
    return value


TEXT = f"{CANARY} and far more"
# Column and value.
VALUES = {
    "id": ("id", 10**20),
    "negative id": ("id", -(10**20)),
    "short": ("short", 2**20),
    "long": ("long", 2**40),
    "too long": ("name", TEXT),
    "NUL": ("name", "a\0"),
    "surrogate": ("name", "a\ud800"),
    "escaped byte": ("name", "a\udc80"),
    "escaped character": ("name", "\udcc3\udca9"),
    "price": ("price", Decimal(10**6)),
    "no number": ("price", Decimal("NaN")),
    "infinite": ("weight", float("-inf")),
    "span": ("span", timedelta(days=200_000_000)),
    "kind": ("kind", CANARY),
    "content": ("content", b"c" * 300),
    "label": ("label", {"size": float("nan")}),
    "label with NUL": ("label", {"size": "\0"}),
    "label with surrogate": ("label", {"a\ud800": 1}),
    "label of 70 bits": ("label", {"size": 2**70 + 1}),
    "label of 200 levels": ("label", nested(200)),
    "label of 9000 levels": ("label", nested(9000)),
    "label of an object": ("label", {CANARY: object()}),
}
# Of a column of JSON, with what is read again.
KINDS = {
    "at": (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
    "day": (date(2026, 1, 1), "2026-01-01"),
    "price": (Decimal("1.10"), "1.10"),
    "id": (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "kinds": ({Kind.TEA}, ["tea"]),
    "by id": ({UUID(int=1): 1}, {"00000000-0000-0000-0000-000000000001": 1}),
    "text": ("☕🍵", "☕🍵"),
    "integers": ([-(2**63), 2**64 - 1], [-(2**63), 2**64 - 1]),
}
COUNTS = (-1, 10**20)
ONE_PARCEL = select(Parcel).options(load_only(Parcel.id)).limit(1)
# More values than a statement can have: SQLite's limit is that of its build.
MANY = 300_000 if DIALECT == "sqlite" else 70_000
columns = Parcel.__table__.columns


async def add(session: Write, case: str) -> None:
    column, value = VALUES[case]
    session.add(Parcel(**{"id": 1, column: value}))


async def change(session: Write, case: str) -> None:
    column, value = VALUES[case]
    await session.execute(update(Parcel).values({column: value}))


async def many(request: Request, case: str) -> None:
    column, value = VALUES[case]
    async with bulk_insert(request.state.database) as connection:
        rows = [{"id": number, column: None} for number in range(2, 5)]
        rows[0] = {"id": 2, column: value}
        await connection.execute(insert(Parcel), rows)


async def find(session: Read, case: str) -> None:
    column, value = VALUES[case]
    await session.execute(select(Parcel.id).where(columns[column] == value))


async def get(session: Read, case: str) -> None:
    await session.get(Parcel, VALUES[case][1])


async def own(session: Write, case: str) -> None:
    """A value within a statement of the handler's own words."""
    statement = f"UPDATE parcels SET {OWN[case]}"  # noqa: S608
    await session.execute(text(statement), {"value": CANARY})


async def load(session: Write, size: int) -> None:
    """More than the server takes at once, if it is a server."""
    await session.execute(select(func.length(literal("x" * size))))


async def rows(session: Read, count: int) -> None:
    await session.execute(select(Parcel.id).limit(count))


async def after(session: Read, count: int) -> None:
    await session.execute(ONE_PARCEL.offset(count))


async def among(session: Read, count: int) -> None:
    await session.execute(select(Parcel.id).where(Parcel.id.in_(range(count))))


async def like(session: Read) -> None:
    await session.execute(select(literal("a").regexp_match("a(")))


async def rejected(session: Write, case: str) -> None:
    for statement in REJECTIONS[case]:
        await session.execute(text(statement), {"value": CANARY})


async def kept(database) -> bool:
    """Whether each value is in its column of JSON as Pydantic writes it."""
    async with database.write() as session:
        label = {name: value for name, (value, _) in KINDS.items()}
        session.add(Parcel(id=5, label=label))
    async with database.read() as session:
        query = select(Parcel.label).where(Parcel.id == 5)
        found = await session.scalar(query)
    return found == {name: value for name, (_, value) in KINDS.items()}


async def bug(session: Write) -> None:
    await session.execute(text("SELECT nothing"))


async def answers_of(client, database):
    answers = {}
    for case, (column, _) in VALUES.items():
        ways = ["add", "change", "many"]
        if DIALECT != "postgresql" or column != "label":  # json = json
            ways.append("find")
        if column == "id":
            ways.append("get")
        answers[case] = {way: await client.ask(f"/{way}", case=case) for way in ways}
        async with database.write() as session:
            await session.execute(delete(Parcel).where(Parcel.id > 0))
    for case in OWN:
        answers[case] = {"own": await client.ask("/own", case=case)}
    limit = 1_000_000
    if DIALECT == "mysql":
        async with database.read() as session:
            limit = await session.scalar(select(text("@@max_allowed_packet")))
    for name, size in {"packet": 100_000, "large packet": limit}.items():
        answers[name] = {"load": await client.ask("/load", size=size)}
    for count in COUNTS:
        ways = ("rows", "after")
        answers[f"{count}"] = {
            way: await client.ask(f"/{way}", count=count) for way in ways
        }
    answers["many values"] = {"among": await client.ask("/among", count=MANY)}
    answers["pattern"] = {"like": await client.ask("/like")}
    for case in REJECTIONS:
        answers[case] = {"rejected": await client.ask("/rejected", case=case)}
    answers["bug"] = {"bug": await client.ask("/bug")}
    return answers


async def main():
    configure_logging("INFO")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    current.set("values")
    routes = (add, change, many, find, get, own, load, bug)
    routes += (rows, after, among, like, rejected)
    async with laboratory() as lab, serving(*routes, **ONE) as client:
        async with lab.database.write() as session:
            session.add(Parcel(id=0))
            for statement in SETUP:
                await session.execute(text(statement))
        opened = []
        event.listen(client.engine, "connect", lambda *_: opened.append(1))
        answers = await answers_of(client, lab.database)
        report = {"answers": answers, "opened": len(opened), "bodies": BODIES}
        print(json.dumps(report | {"kept": await kept(lab.database)}))


uvloop.run(main())
