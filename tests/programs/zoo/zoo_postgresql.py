"""Models of the zoo that only PostgreSQL can have."""

from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import Mapped, mapped_column

from .db import Base

NUMBERS = sa.Sequence("zoo_numbers", start=100, metadata=Base.metadata)


class Ready(Base):
    __tablename__ = "zoo_ready"

    id: Mapped[UUID] = mapped_column(
        primary_key=True, server_default=sa.func.gen_random_uuid()
    )
    number: Mapped[int] = mapped_column(server_default=NUMBERS.next_value())
    document: Mapped[dict[str, Any]] = mapped_column(pg.JSONB, server_default="{}")
    listed: Mapped[list[Any]] = mapped_column(server_default=sa.text("'[1]'::jsonb"))
    plain: Mapped[dict[str, Any]] = mapped_column(pg.JSON, server_default='{"a":1}')
    tags: Mapped[list[str]] = mapped_column(
        pg.ARRAY(sa.String(20)), server_default="{}"
    )
    moods: Mapped[list[str]] = mapped_column(
        pg.ARRAY(pg.ENUM("good", "it's: bad", name="zoo_mood"))
    )
    utc: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.text("(now() AT TIME ZONE 'utc')")
    )
    clock: Mapped[datetime] = mapped_column(server_default=sa.text("clock_timestamp()"))
    soon: Mapped[datetime] = mapped_column(
        server_default=sa.text("now() + interval '1 day'")
    )
    today: Mapped[date] = mapped_column(server_default=sa.text("CURRENT_DATE"))
    period: Mapped[timedelta] = mapped_column(server_default="1 day")
    raw: Mapped[bytes] = mapped_column(server_default=sa.text(r"'\xff'"))
    address: Mapped[str | None] = mapped_column(pg.INET, server_default="::1")
    words: Mapped[Any] = mapped_column(
        pg.TSVECTOR,
        sa.Computed("to_tsvector('english'::regconfig, body)", persisted=True),
    )
    body: Mapped[str]
    short: Mapped[str] = mapped_column(
        sa.String(10), server_default=sa.text("'x'::text")
    )
    cast: Mapped[int] = mapped_column(server_default=sa.cast("5", sa.BigInteger))

    __table_args__ = (
        sa.Index("zoo_ready_words", "words", postgresql_using="gin"),
        sa.Index("zoo_ready_document", "document", postgresql_using="gin"),
        sa.Index(
            "zoo_ready_path",
            "document",
            postgresql_using="gin",
            postgresql_ops={"document": "jsonb_path_ops"},
        ),
        sa.Index(
            "zoo_ready_open",
            "clock",
            postgresql_where=sa.text("number > 5"),
            postgresql_include=["number"],
        ),
        sa.Index("zoo_ready_lower", sa.func.lower("body"), unique=True),
        sa.Index("zoo_ready_key", sa.text("(document ->> 'key')")),
        sa.Index("zoo_ready_last", sa.text("clock DESC NULLS LAST"), "id"),
        sa.UniqueConstraint("short", "number", postgresql_nulls_not_distinct=True),
    )


sa.Index("zoo_ready_two", sa.func.lower(Ready.body), Ready.clock.desc())
sa.Index("zoo_ready_coalesce", sa.func.coalesce(Ready.address, sa.text("'::1'::inet")))


class Booking(Base):
    __tablename__ = "zoo_booking"

    id: Mapped[int] = mapped_column(sa.Identity(start=7, increment=3), primary_key=True)
    room: Mapped[Any] = mapped_column(pg.INT4RANGE)

    __table_args__ = (pg.ExcludeConstraint(("room", "&&"), name="zoo_no_overlap"),)


class Measure(Base):
    """A table with partitions, which a migration of the owner creates."""

    __tablename__ = "zoo_measure"
    __table_args__ = ({"postgresql_partition_by": "RANGE (day)"},)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date] = mapped_column(primary_key=True)


class Entry(Base):
    """A table in a schema, with a key to one in another and to itself."""

    __tablename__ = "zoo_entry"
    __table_args__ = ({"schema": "zoo_audit", "comment": "in a schema"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    before_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("zoo_audit.zoo_entry.id", ondelete="CASCADE"), index=True
    )
    type_id: Mapped[UUID] = mapped_column(
        sa.ForeignKey("zoo_types.id", deferrable=True, initially="DEFERRED")
    )
    kind: Mapped[str] = mapped_column(
        sa.Enum("new", "old", name="kind", schema="zoo_audit"), server_default="new"
    )


class Reader(Base):
    __tablename__ = "zoo_reader"

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(sa.ForeignKey("zoo_audit.zoo_entry.id"))


class Public(Base):
    """The schema that is the default one anyway."""

    __tablename__ = "zoo_public"
    __table_args__ = ({"schema": "public"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    other_id: Mapped[int | None] = mapped_column(sa.ForeignKey("public.zoo_public.id"))
    reader_id: Mapped[int | None] = mapped_column(sa.ForeignKey("zoo_reader.id"))
