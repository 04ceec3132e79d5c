"""Pays an order by a background task, exactly once: a part of the example."""

from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, HTTPException
from sqlalchemy import Update, bindparam, select, update

from .db import Database, Write
from .models import Order, OrderStatus
from .worker.app import task

SWEEP_SECONDS = 30
# A task that is published again expires before the next sweep, or the queue would grow
# by what it has already. The orders beyond this number are for the next sweep.
MAX_ORDERS = 10_000

NEW, PAYING, PAID = OrderStatus

router = APIRouter(prefix="/orders", tags=["orders"])


def move(old: OrderStatus, new: OrderStatus) -> Update:
    return update(Order).where(BY_ID, Order.status == old).values(status=new)


BY_ID = Order.id == bindparam("order_id")
STATUS = select(Order.status).where(BY_ID)
PROMISE, PAY = move(NEW, PAYING), move(PAYING, PAID)
WAITING = select(Order.id).where(Order.status == PAYING).order_by(Order.created_at)
SWEPT = WAITING.limit(MAX_ORDERS)


@router.post("/{order_id:uuid}/pay", status_code=202)
async def pay_order(
    order_id: UUID, session: Write, afterwards: BackgroundTasks
) -> dict[str, str]:
    """Commits that the order will be paid; the task is published after the answer."""
    connection = await session.connection()
    promised = await connection.execute(PROMISE, {"order_id": order_id})
    if promised.rowcount == 0:
        status = await session.scalar(STATUS, {"order_id": order_id})
        if status is None:
            raise HTTPException(404, "There is no such order.")
        raise HTTPException(409, f"The order is {status}.")
    afterwards.add_task(pay.enqueue, order_id)
    return {"status": PAYING}


@task()
async def pay(database: Database, order_id: UUID) -> None:
    """However often it is delivered, one delivery finds the order waiting.

    A call to another service, such as a bank, passes the id as the idempotency key.
    """
    async with database.write() as session:
        await session.execute(PAY, {"order_id": order_id})


@task(every=SWEEP_SECONDS)
async def sweep(database: Database) -> None:
    """Publish the task of each waiting order again: a broker may lose a message."""
    async with database.read() as session:
        orders = (await session.scalars(SWEPT)).all()
    again = pay.with_options(expires=SWEEP_SECONDS)
    for order_id in orders:
        if not await again.enqueue(order_id):
            break
