"""Pays an order by a background task, exactly once: a part of the example."""

from typing import Any, cast
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, HTTPException
from sqlalchemy import CursorResult, Update, select, update

from .db import Database, Write
from .models import Order, OrderStatus
from .worker.app import task

SWEEP_SECONDS = 30
# A task that is published again expires before the next sweep, or the queue would grow
# by what it has already. The orders beyond this number are for the next sweep.
MAX_ORDERS = 10_000

NEW, PAYING, PAID = OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])


@router.post("/{order_id}/pay", status_code=202)
async def pay_order(
    order_id: UUID, session: Write, afterwards: BackgroundTasks
) -> dict[str, str]:
    """Commits that the order will be paid; the task is published after the answer."""
    promised = await session.execute(_move(order_id, NEW, PAYING))
    if cast("CursorResult[Any]", promised).rowcount == 0:
        order = await session.get(Order, order_id)
        if order is None:
            raise HTTPException(404, "There is no such order.")
        raise HTTPException(409, f"The order is {order.status}.")
    afterwards.add_task(pay.enqueue, order_id)
    return {"status": PAYING}


@task()
async def pay(database: Database, order_id: UUID) -> None:
    """However often it is delivered, one delivery finds the order waiting.

    A call to another service, such as a bank, passes the id as the idempotency key.
    """
    async with database.write() as session:
        await session.execute(_move(order_id, PAYING, PAID))


@task(every=SWEEP_SECONDS)
async def sweep(database: Database) -> None:
    """Publish the task of each waiting order again: a broker may lose a message."""
    waiting = select(Order.id).where(Order.status == PAYING).order_by(Order.created_at)
    async with database.read() as session:
        orders = (await session.scalars(waiting.limit(MAX_ORDERS))).all()
    again = pay.with_options(expires=SWEEP_SECONDS)
    for order_id in orders:
        if not await again.enqueue(order_id):
            break


def _move(order_id: UUID, old: OrderStatus, new: OrderStatus) -> Update:
    where = Order.id == order_id, Order.status == old
    return update(Order).where(*where).values(status=new)
