"""Pays an order in the background, and exactly once: a part of the example."""

from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, HTTPException
from sqlalchemy import CursorResult, select, update

from .db.session import Database, Write
from .models import Order, OrderStatus
from .worker import task

SWEEP_SECONDS = 30
# What is enqueued again has as long to be done: else the queue would grow by what is in
# it already. More than a sweep can enqueue is for the next one.
MOST_AT_ONCE = 10_000

router = APIRouter()


@router.post("/{order_id}/pay", status_code=202)
async def pay_order(
    order_id: UUID, session: Write, afterwards: BackgroundTasks
) -> dict[str, str]:
    """It will be paid, that is on record: the broker is told after the answer."""
    promise = (
        update(Order)
        .where(Order.id == order_id, Order.status == OrderStatus.NEW)
        .values(status=OrderStatus.PAYING)
    )
    promised = cast("CursorResult[Any]", await session.execute(promise))
    if promised.rowcount == 0:
        order = await session.get(Order, order_id)
        if order is None:
            raise HTTPException(404, "There is no such order.")
        raise HTTPException(409, f"The order is {order.status}.")
    afterwards.add_task(pay.enqueue, order_id)
    return {"status": OrderStatus.PAYING}


@task()
async def pay(database: Database, order_id: UUID) -> None:
    """However often it is delivered, one of them finds the order waiting.

    Whoever else is told to pay it, a bank say, gets its id as the idempotency key.
    """
    payment = (
        update(Order)
        .where(Order.id == order_id, Order.status == OrderStatus.PAYING)
        .values(status=OrderStatus.PAID)
    )
    async with database.write() as session:
        await session.execute(payment)


@task(every=SWEEP_SECONDS)
async def sweep(database: Database) -> None:
    """Enqueue what was promised and is not done: a broker may lose what it was told."""
    waiting = (
        select(Order.id)
        .where(Order.status == OrderStatus.PAYING)
        .order_by(Order.created_at)
        .limit(MOST_AT_ONCE)
    )
    async with database.read() as session:
        orders = (await session.scalars(waiting)).all()
    again = pay.with_options(expires=SWEEP_SECONDS)
    for order_id in orders:
        if not await again.enqueue(order_id):
            break
