"""An example feature, to be copied or deleted: orders and their lines.

Statements are built once, with a `bindparam()` for each value, and return rows. Answers
are dataclasses, which FastAPI does not validate again. Objects cost more, and are the
better choice where relations are followed, as in `list_lines`, or where rules decide
what changes: `order = await session.get(Order, order_id)`, then set its attributes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import compress
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request
from pydantic import BaseModel, BeforeValidator, Field
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import joinedload

from .db import Csv, Cursor, Export, Keyset, Read, Write, bulk_insert
from .models import Order, OrderLine, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])

# No NUL: databases that cannot store it in a text would answer with an error.
TEXT = r"^[^\x00]*$"
Customer = Annotated[str, Field(min_length=1, max_length=200, pattern=TEXT)]
Sku = Annotated[str, Field(min_length=1, max_length=64, pattern=TEXT)]
# In JSON 2.0 is an integer; "2" and true, which Pydantic would take, are none.
WHOLE = BeforeValidator(lambda it: int(it) if type(it) is float and it % 1 == 0 else it)
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
NO_ORDER = "There is no such order."


@dataclass
class Line:
    sku: Sku
    quantity: Annotated[int, Field(strict=True, ge=1, le=1_000_000), WHOLE]
    price_cents: Annotated[int, Field(strict=True, ge=0, le=10**12), WHOLE]


class OrderPatch(BaseModel):
    customer: Customer


class NewOrder(OrderPatch):
    lines: list[Line] = Field(min_length=1, max_length=100)


NewOrders = Annotated[list[NewOrder], Field(min_length=1, max_length=10_000)]


@dataclass
class OrderSummary:
    id: UUID
    customer: str
    status: OrderStatus
    created_at: datetime
    updated_at: datetime


@dataclass
class OrderDetail(OrderSummary):
    lines: list[Line]


@dataclass
class OrderPage:
    items: list[OrderSummary]
    next_cursor: str | None


@dataclass
class SoldLine:
    order_id: UUID
    customer: str
    quantity: int


SUMMARY = (Order.id, Order.customer, Order.status, Order.created_at, Order.updated_at)
PAGES = Keyset(Order.created_at, Order.id)
FILTERS = (
    Order.status == bindparam("status"),
    Order.customer == bindparam("customer"),
    PAGES.is_after_cursor,
)
EXPORT = select(*SUMMARY[:4]).order_by(*PAGES.columns)

BY_ID = Order.id == bindparam("order_id")
INSERT_ORDER, INSERT_LINES = insert(Order), insert(OrderLine)
SELECT_ORDER = select(*SUMMARY).where(BY_ID)
UPDATE_ORDER = update(Order).where(BY_ID).values(customer=bindparam("customer"))
DELETE_ORDER = delete(Order).where(BY_ID)

LINE = (OrderLine.sku, OrderLine.quantity, OrderLine.price_cents)
OF_ORDER = OrderLine.order_id == bindparam("order_id")
SELECT_LINES = select(*LINE).where(OF_ORDER).order_by(OrderLine.position)

# joinedload: the order comes with its line; a second query would need an await.
SOLD = select(OrderLine).where(OrderLine.sku == bindparam("sku"))
SOLD = SOLD.order_by(OrderLine.order_id, OrderLine.position).limit(100)
SELECT_SOLD = SOLD.options(joinedload(OrderLine.order))


@router.post("", status_code=201)
async def create_order(
    new: NewOrder, session: Write, key: IdempotencyKey = None
) -> OrderDetail:
    """A second order with the same Idempotency-Key is rejected with 409."""
    now = datetime.now(UTC)
    order = OrderSummary(uuid4(), new.customer, OrderStatus.NEW, now, now)
    connection = await session.connection()
    await connection.execute(INSERT_ORDER, vars(order) | {"idempotency_key": key})
    await connection.execute(INSERT_LINES, _rows(order.id, new.lines))
    return OrderDetail(**vars(order), lines=new.lines)


@router.get("")
async def list_orders(
    session: Read,
    status: OrderStatus | None = None,
    customer: Customer | None = None,
    cursor: Cursor | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> OrderPage:
    """Newest first; pages by key, so that page 1,000 costs no more than the first."""
    # One more than the limit tells whether there is a next page.
    values = {"status": status, "customer": customer, "limit": limit + 1}
    values |= PAGES.values(cursor)
    page = _page(*map(bool, (status, customer, cursor)))
    rows = (await session.execute(page, values)).all()
    orders = [OrderSummary(*row) for row in rows[:limit]]
    return OrderPage(orders, PAGES.cursor(orders[-1]) if len(rows) > limit else None)


@router.get("/export", response_class=Csv)
async def export_orders(export: Export) -> Csv:
    """All orders as CSV, oldest first, however many there are."""
    orders = await export.stream(EXPORT)
    return Csv(orders, "orders.csv")


@router.post("/import", status_code=201, max_body_size=10_000_000)
async def import_orders(new: NewOrders, request: Request) -> dict[str, int]:
    """Many orders: all or none."""
    orders = {uuid4(): each for each in new}
    rows = [{"id": key, "customer": each.customer} for key, each in orders.items()]
    lines = [row for key, each in orders.items() for row in _rows(key, each.lines)]
    async with bulk_insert(request.state.database) as connection:
        await connection.execute(INSERT_ORDER, rows)
        await connection.execute(INSERT_LINES, lines)
    return {"imported": len(rows)}


@router.get("/lines")
async def list_lines(session: Read, sku: Sku) -> list[SoldLine]:
    """The buyers of an article, 100 at most."""
    lines = await session.scalars(SELECT_SOLD, {"sku": sku})
    return [SoldLine(it.order_id, it.order.customer, it.quantity) for it in lines]


@router.get("/{order_id:uuid}")
async def get_order(order_id: UUID, session: Read) -> OrderDetail:
    order = (await session.execute(SELECT_ORDER, {"order_id": order_id})).one_or_none()
    if order is None:
        raise HTTPException(404, NO_ORDER)
    lines = await session.execute(SELECT_LINES, {"order_id": order_id})
    return OrderDetail(*order, [Line(*line) for line in lines])


@router.patch("/{order_id:uuid}")
async def update_order(order_id: UUID, new: OrderPatch, session: Write) -> OrderDetail:
    """`updated_at` changes as well: the column has an `onupdate`."""
    connection = await session.connection()
    await connection.execute(UPDATE_ORDER, {"order_id": order_id, **vars(new)})
    return await get_order(order_id, session)


@router.delete("/{order_id:uuid}", status_code=204)
async def delete_order(order_id: UUID, session: Write) -> None:
    """The database deletes its lines, by the ON DELETE of their foreign key."""
    connection = await session.connection()
    deleted = await connection.execute(DELETE_ORDER, {"order_id": order_id})
    if deleted.rowcount == 0:
        raise HTTPException(404, NO_ORDER)


@cache
def _page(*filters: bool) -> Any:
    """One statement for each set of filters."""
    query = select(*SUMMARY).where(*compress(FILTERS, filters))
    return query.order_by(*PAGES.newest_first).limit(bindparam("limit"))


def _rows(order_id: UUID, lines: list[Line]) -> list[dict[str, Any]]:
    key: dict[str, Any] = {"order_id": order_id}
    return [{**key, "position": n, **vars(line)} for n, line in enumerate(lines)]
