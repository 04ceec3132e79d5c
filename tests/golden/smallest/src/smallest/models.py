"""Your tables. Alembic compares the database with what is declared here."""

from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .db import Base


def now() -> datetime:
    return datetime.now(UTC)


class OrderStatus(StrEnum):
    NEW = "new"
    PAID = "paid"


class Order(Base):
    __tablename__ = "orders"
    __table_args__ = (
        # One index for each way to page through the list.
        Index(None, "created_at", "id"),
        Index(None, "status", "created_at", "id"),
        Index(None, "customer", "created_at", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    customer: Mapped[str] = mapped_column(String(200))
    status: Mapped[OrderStatus] = mapped_column(default=OrderStatus.NEW)
    idempotency_key: Mapped[str | None] = mapped_column(String(200), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)

    # lazy="raise": loading behind an attribute would need an await there, and a
    # query for each row. A query that wants the lines says so.
    lines: Mapped[list["OrderLine"]] = relationship(
        back_populates="order",
        cascade="all, delete-orphan",
        lazy="raise",
        order_by="OrderLine.position",
        passive_deletes=True,  # by the ON DELETE CASCADE of the foreign key
    )


class OrderLine(Base):
    __tablename__ = "order_lines"

    order_id: Mapped[UUID] = mapped_column(
        ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    sku: Mapped[str] = mapped_column(String(64), index=True)
    quantity: Mapped[int] = mapped_column(Integer)
    price_cents: Mapped[int] = mapped_column(BigInteger)

    order: Mapped[Order] = relationship(back_populates="lines", lazy="raise")
