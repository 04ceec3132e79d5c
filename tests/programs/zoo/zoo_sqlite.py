"""Models of the zoo that only SQLite can have."""

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from .db import Base


class Ready(Base):
    __tablename__ = "zoo_ready"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[str]
    size: Mapped[int] = mapped_column(sa.Computed("length(body)", persisted=False))
    stamp: Mapped[datetime] = mapped_column(
        sa.DateTime, server_default=sa.text("(datetime('now'))")
    )

    __table_args__ = (
        sa.Index("zoo_ready_long", "body", sqlite_where=sa.text("length(body) > 5")),
        {"sqlite_autoincrement": True},
    )


sa.Index("zoo_ready_lower", sa.func.lower(Ready.body), unique=True)
sa.Index("zoo_ready_two", sa.func.lower(Ready.body), Ready.stamp.desc())
