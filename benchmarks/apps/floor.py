"""FastAPI and Core, and nothing else: no Session, no log, no request id, no limits.

Statements and answers are those of the rendered service. What it adds is the difference
between the two.
"""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

from datetime import UTC, datetime
from uuid import UUID, uuid4

from drivers import SLOW, connect_args, sqlalchemy_url
from fastapi import FastAPI, HTTPException
from service import orders
from service.models import OrderStatus
from service.orders import Line, NewOrder, OrderDetail, OrderPage, OrderSummary
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

options = {"connect_args": connect_args(), "pool_size": 10, "max_overflow": 0}
reads = create_async_engine(
    sqlalchemy_url(),
    **options,
    isolation_level="AUTOCOMMIT",
    skip_autocommit_rollback=True,
)
writes = create_async_engine(sqlalchemy_url(), **options)
PAGE = orders._page(False, False, False)  # noqa: FBT003
SLOW_STATEMENT = text(SLOW)


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/get/{order_id}")
    @app.get("/kept/{order_id}")
    async def one(order_id: UUID) -> OrderSummary:
        async with reads.connect() as connection:
            found = await connection.execute(
                orders.SELECT_ORDER, {"order_id": order_id}
            )
        return OrderSummary(*found.one())

    @app.get("/orders/{order_id}")
    async def detail(order_id: UUID) -> OrderDetail:
        values = {"order_id": order_id}
        async with reads.connect() as connection:
            order = (await connection.execute(orders.SELECT_ORDER, values)).first()
            if order is None:
                raise HTTPException(404)
            lines = await connection.execute(orders.SELECT_LINES, values)
        return OrderDetail(*order, [Line(*line) for line in lines])

    @app.get("/orders")
    async def page(limit: int = 50) -> OrderPage:
        async with reads.connect() as connection:
            rows = await connection.execute(PAGE, {"limit": limit})
        return OrderPage([OrderSummary(*row) for row in rows], None)

    @app.post("/orders", status_code=201)
    async def create(new: NewOrder) -> OrderDetail:
        now = datetime.now(UTC)
        order = OrderSummary(uuid4(), new.customer, OrderStatus.NEW, now, now)
        lines = orders._rows(order.id, new.lines)
        async with writes.begin() as connection:
            await connection.execute(orders.INSERT_ORDER, vars(order))
            await connection.execute(orders.INSERT_LINES, lines)
        return OrderDetail(**vars(order), lines=new.lines)

    @app.get("/slow")
    async def slow() -> None:
        async with reads.connect() as connection:
            await connection.execute(SLOW_STATEMENT)

    return app
