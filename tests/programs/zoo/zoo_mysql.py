"""Models of the zoo that only MySQL and MariaDB can have."""

import os
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import Mapped, mapped_column

from .db import Base


class Ready(Base):
    __tablename__ = "zoo_ready"

    id: Mapped[int] = mapped_column(mysql.BIGINT(unsigned=True), primary_key=True)
    small: Mapped[int] = mapped_column(mysql.TINYINT(unsigned=True), server_default="1")
    price: Mapped[Decimal] = mapped_column(sa.Numeric(10, 2), server_default="1.50")
    stamp: Mapped[datetime] = mapped_column(
        mysql.TIMESTAMP,
        server_default=sa.text("CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP"),
    )
    touched: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.text("now() ON UPDATE now()")
    )
    exact: Mapped[datetime] = mapped_column(
        mysql.DATETIME(fsp=3),
        server_default=sa.text("CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3)"),
    )
    key: Mapped[str] = mapped_column(sa.CHAR(36), server_default=sa.text("(uuid())"))
    document: Mapped[dict[str, Any]] = mapped_column(
        server_default=sa.text("(json_object())")
    )
    letter: Mapped[str] = mapped_column(mysql.ENUM("a", "it's"), server_default="it's")
    letters: Mapped[str] = mapped_column(mysql.SET("a", "b"), server_default="a,b")
    medium: Mapped[str] = mapped_column(mysql.MEDIUMTEXT)
    year: Mapped[int] = mapped_column(mysql.YEAR)
    body: Mapped[str] = mapped_column(sa.String(500))
    size: Mapped[int] = mapped_column(sa.Computed("char_length(body)", persisted=False))

    __table_args__ = (
        sa.Index("zoo_ready_body", "body", mysql_length={"body": 20}),
        sa.Index("zoo_ready_words", "medium", mysql_prefix="FULLTEXT"),
        sa.Index("zoo_ready_down", sa.desc("stamp"), "id"),
    )


if os.environ.get("ZOO_SERVER") == "mysql":
    sa.Index("zoo_ready_lower", sa.func.lower(Ready.body), Ready.year.desc())
    sa.Index("zoo_ready_sum", Ready.year + 1, unique=True)


class Entry(Base):
    """A table in another database, with a key to one of this and to itself."""

    __tablename__ = "zoo_entry"
    __table_args__ = ({"schema": "zoo_audit", "comment": "in a schema"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    before_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("zoo_audit.zoo_entry.id", ondelete="CASCADE"), index=True
    )


class Reader(Base):
    __tablename__ = "zoo_reader"

    id: Mapped[int] = mapped_column(primary_key=True)
    entry_id: Mapped[int] = mapped_column(sa.ForeignKey("zoo_audit.zoo_entry.id"))
