"""Pays an order: a part of the example."""

from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, HTTPException
from sqlalchemy import CursorResult, update

from .db import Write
from .models import Order, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])


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
