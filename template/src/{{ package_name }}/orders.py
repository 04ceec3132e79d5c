"""An example feature, to be copied or deleted: orders and their lines."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import CursorResult, select, tuple_, update
from sqlalchemy.orm import selectinload

from .db.session import Read, Write
from .models import Order, OrderLine, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])

# No NUL: databases that cannot store it in a text would answer with an error.
TEXT = r"^[^\x00]*$"


class Line(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str = Field(min_length=1, max_length=64, pattern=TEXT)
    quantity: int = Field(ge=1, le=1_000_000)
    price_cents: int = Field(ge=0, le=10**12)


class NewOrder(BaseModel):
    customer: str = Field(min_length=1, max_length=200, pattern=TEXT)
    lines: list[Line] = Field(min_length=1, max_length=100)


class OrderSummary(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: UUID
    customer: str
    status: OrderStatus
    created_at: datetime


class OrderDetail(OrderSummary):
    lines: list[Line]


class OrderPage(BaseModel):
    items: list[OrderSummary]
    next_cursor: str | None


@router.post("", status_code=201, response_model=OrderDetail)
async def create_order(
    new: NewOrder,
    session: Write,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> Order:
    """A second order with the same Idempotency-Key is refused with 409."""
    lines = [
        OrderLine(position=position, **line.model_dump())
        for position, line in enumerate(new.lines)
    ]
    order = Order(customer=new.customer, lines=lines, idempotency_key=idempotency_key)
    session.add(order)
    # Now and not at the end: the answer shows what the defaults have filled in.
    await session.flush()
    return order


@router.get("")
async def list_orders(
    session: Read,
    status: OrderStatus | None = None,
    customer: Annotated[str | None, Query(max_length=200, pattern=TEXT)] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OrderPage:
    """Newest first; pages by key, so that page 1,000 costs no more than the first."""
    query = select(Order).order_by(Order.created_at.desc(), Order.id.desc())
    if status:
        query = query.where(Order.status == status)
    if customer:
        query = query.where(Order.customer == customer)
    if cursor:
        query = query.where(tuple_(Order.created_at, Order.id) < _decode(cursor))
    # One more than asked for tells whether there is a next page.
    orders = (await session.scalars(query.limit(limit + 1))).all()
    return OrderPage(
        items=[OrderSummary.model_validate(order) for order in orders[:limit]],
        next_cursor=_encode(orders[limit - 1]) if len(orders) > limit else None,
    )


@router.get("/{order_id}", response_model=OrderDetail)
async def get_order(order_id: UUID, session: Read) -> Order:
    # selectinload: all lines in a second query, instead of one query an order.
    order = await session.get(Order, order_id, options=[selectinload(Order.lines)])
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order


@router.post("/{order_id}/pay", status_code=204)
async def pay_order(order_id: UUID, session: Write) -> None:
    """The database decides: of two payments at once, one finds the order new."""
    payment = (
        update(Order)
        .where(Order.id == order_id, Order.status == OrderStatus.NEW)
        .values(status=OrderStatus.PAID)
    )
    paid = cast("CursorResult[Any]", await session.execute(payment))
    if paid.rowcount == 0:
        order = await session.get(Order, order_id)
        if order is None:
            raise HTTPException(404, "There is no such order.")
        raise HTTPException(409, f"The order is {order.status}.")


def _encode(last: Order) -> str:
    key = f"{last.created_at.isoformat()} {last.id}"
    return urlsafe_b64encode(key.encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, order_id = urlsafe_b64decode(cursor).decode().split()
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(order_id)
    except (ValueError, OverflowError):
        raise HTTPException(422, "The cursor is not one of ours.") from None
