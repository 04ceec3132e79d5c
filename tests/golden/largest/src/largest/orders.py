"""An example feature, to be copied or deleted: orders and their lines."""

import csv
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from io import StringIO
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncResult
from sqlalchemy.orm import selectinload

from .db import Export, Read, Write, batches, bulk_insert
from .models import Order, OrderLine, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])

# No NUL: databases that cannot store it in a text would answer with an error.
TEXT = r"^[^\x00]*$"
MAX_IMPORT_BYTES = 10_000_000
EXPORTED = (Order.id, Order.customer, Order.status, Order.created_at)
ExportedRows = AsyncResult[UUID, str, OrderStatus, datetime]


class Line(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    sku: str = Field(min_length=1, max_length=64, pattern=TEXT)
    quantity: int = Field(ge=1, le=1_000_000)
    price_cents: int = Field(ge=0, le=10**12)


class NewOrder(BaseModel):
    customer: str = Field(min_length=1, max_length=200, pattern=TEXT)
    lines: list[Line] = Field(min_length=1, max_length=100)


NewOrders = Annotated[list[NewOrder], Field(min_length=1, max_length=10_000)]


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
    """A second order with the same Idempotency-Key is rejected with 409."""
    new_lines = enumerate(new.lines)
    lines = [OrderLine(position=n, **line.model_dump()) for n, line in new_lines]
    order = Order(customer=new.customer, lines=lines, idempotency_key=idempotency_key)
    session.add(order)
    # Before the commit: the answer shows the values of the defaults.
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
    # One more than the limit tells whether there is a next page.
    orders = (await session.scalars(query.limit(limit + 1))).all()
    return OrderPage(
        items=[OrderSummary.model_validate(order) for order in orders[:limit]],
        next_cursor=_encode(orders[limit - 1]) if len(orders) > limit else None,
    )


@router.get("/export", response_class=StreamingResponse)
async def export_orders(export: Export) -> StreamingResponse:
    """All orders as CSV, oldest first, however many there are."""
    orders = await export.stream(select(*EXPORTED).order_by(Order.created_at, Order.id))
    headers = {"Content-Disposition": 'attachment; filename="orders.csv"'}
    return StreamingResponse(_as_csv(orders), headers=headers, media_type="text/csv")


@router.post("/import", status_code=201, max_body_size=MAX_IMPORT_BYTES)
async def import_orders(new: NewOrders, request: Request) -> dict[str, int]:
    """Many orders: all or none."""
    orders = [{"id": uuid4(), "customer": each.customer} for each in new]
    lines = [
        {"order_id": order["id"], "position": position, **line.model_dump()}
        for order, each in zip(orders, new, strict=True)
        for position, line in enumerate(each.lines)
    ]
    async with bulk_insert(request.state.database) as connection:
        await connection.execute(insert(Order), orders)
        await connection.execute(insert(OrderLine), lines)
    return {"imported": len(orders)}


@router.get("/{order_id}", response_model=OrderDetail)
async def get_order(order_id: UUID, session: Read) -> Order:
    # selectinload: all lines in a second query, instead of one query an order.
    order = await session.get(Order, order_id, options=[selectinload(Order.lines)])
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order


async def _as_csv(orders: ExportedRows) -> AsyncIterator[str]:
    yield ",".join(column.key for column in EXPORTED) + "\r\n"
    async for batch in batches(orders):
        text = StringIO()
        csv.writer(text).writerows((*row, at.isoformat()) for *row, at in batch)
        yield text.getvalue()


def _encode(last: Order) -> str:
    return urlsafe_b64encode(
        f"{last.created_at.isoformat()} {last.id}".encode()
    ).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, order_id = urlsafe_b64decode(cursor).decode().split()
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(order_id)
    except (ValueError, OverflowError):
        raise HTTPException(422, "The cursor is not one of this service.") from None
