"""Pays an order: a part of the example."""

from uuid import UUID

from fastapi import APIRouter, HTTPException
from sqlalchemy import bindparam, select, update

from .db import Write
from .models import Order, OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])

BY_ID = Order.id == bindparam("order_id")
STATUS = select(Order.status).where(BY_ID)
# The database decides: of two payments at once, one finds the order new.
PAY = (
    update(Order)
    .where(BY_ID, Order.status == OrderStatus.NEW)
    .values(status=OrderStatus.PAID)
)


@router.post("/{order_id:uuid}/pay", status_code=204)
async def pay_order(order_id: UUID, session: Write) -> None:
    connection = await session.connection()
    paid = await connection.execute(PAY, {"order_id": order_id})
    if paid.rowcount == 0:
        status = await session.scalar(STATUS, {"order_id": order_id})
        if status is None:
            raise HTTPException(404, "There is no such order.")
        raise HTTPException(409, f"The order is {status}.")
