"""An example feature, to be copied or deleted: orders and their lines."""

import csv
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from io import StringIO, TextIOWrapper
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncResult
from sqlalchemy.orm import selectinload

from . import payments
from .db.bulk import ROWS_AT_ONCE, Export, in_parts, load
from .db.session import Read, Write
from .middleware import allow_body
from .models import Order, OrderLine, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])
router.include_router(payments.router)

# No NUL: databases that cannot store it in a text would answer with an error.
TEXT = r"^[^\x00]*$"
MAX_IMPORT_BYTES = 1_000_000_000
MAX_LINE = 100_000
EXPORTED = (Order.id, Order.customer, Order.status, Order.created_at)


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


class ImportedOrder(Line):
    """A row of a CSV file: an order with one line."""

    customer: str = Field(min_length=1, max_length=200, pattern=TEXT)


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


@router.get("/export", response_class=StreamingResponse)
async def export_orders(export: Export) -> StreamingResponse:
    """All orders as CSV, oldest first, however many there are."""
    orders = await export.stream(select(*EXPORTED).order_by(Order.created_at, Order.id))
    headers = {"Content-Disposition": 'attachment; filename="orders.csv"'}
    return StreamingResponse(_as_csv(orders), headers=headers, media_type="text/csv")


@router.post("/import", status_code=201)
async def import_orders(request: Request) -> dict[str, int]:
    """CSV with the columns customer, sku, quantity and price_cents: all or nothing."""
    allow_body(request, MAX_IMPORT_BYTES)
    imported = 0
    # All of it first, and to a file: a connection does not wait for a slow sender.
    with SpooledTemporaryFile(max_size=ROWS_AT_ONCE * 1000) as file:
        async for part in request.stream():
            file.write(part)
        file.seek(0)
        # What is not UTF-8 passes here, and is refused with its line.
        text = TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        # A file need not have lines: at most so much of one is in memory.
        rows = csv.DictReader(iter(partial(text.readline, MAX_LINE), ""))
        async with load(request.state.database) as connection:
            while orders := _read_orders(rows):
                lines = [order.pop("line") for order in orders]
                await connection.execute(insert(Order), orders)
                await connection.execute(insert(OrderLine), lines)
                imported += len(orders)
    return {"imported": imported}


@router.get("/{order_id}", response_model=OrderDetail)
async def get_order(order_id: UUID, session: Read) -> Order:
    # selectinload: all lines in a second query, instead of one query an order.
    order = await session.get(Order, order_id, options=[selectinload(Order.lines)])
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order


async def _as_csv(
    orders: AsyncResult[UUID, str, OrderStatus, datetime],
) -> AsyncIterator[str]:
    yield ",".join(column.key for column in EXPORTED) + "\r\n"
    async for part in in_parts(orders):
        text = StringIO()
        csv.writer(text).writerows(
            (*rest, created_at.isoformat()) for *rest, created_at in part
        )
        yield text.getvalue()


def _read_orders(rows: "csv.DictReader[str]") -> list[dict[str, Any]]:
    """The next thousand; none at the end of the file."""
    orders = []
    try:
        for row in islice(rows, ROWS_AT_ONCE):
            line = ImportedOrder.model_validate(row).model_dump()
            order = {"id": uuid4(), "customer": line.pop("customer")}
            line |= {"order_id": order["id"], "position": 0}
            orders.append({**order, "line": line})
    except (ValidationError, csv.Error):
        raise HTTPException(422, f"Line {rows.line_num} is no order.") from None
    return orders


def _encode(last: Order) -> str:
    key = f"{last.created_at.isoformat()} {last.id}"
    return urlsafe_b64encode(key.encode()).decode()


def _decode(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, order_id = urlsafe_b64decode(cursor).decode().split()
        return datetime.fromisoformat(created_at).astimezone(UTC), UUID(order_id)
    except (ValueError, OverflowError):
        raise HTTPException(422, "The cursor is not one of ours.") from None
