"""What articles show: pre-ping, a session for each request, entities, response models.

Each statement is built in its handler, relations come by selectinload, and what was
written is refreshed.
"""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from drivers import SLOW, connect_args, sqlalchemy_url
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from service.models import Order, OrderLine
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload

engine = create_async_engine(
    sqlalchemy_url(),
    connect_args=connect_args(),
    pool_pre_ping=True,
    pool_size=10,
    max_overflow=0,
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


class LineIn(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    sku: str
    quantity: int
    price_cents: int


class OrderIn(BaseModel):
    customer: str
    lines: list[LineIn]


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    customer: str
    status: str
    created_at: datetime
    updated_at: datetime


class OrderWithLines(OrderOut):
    lines: list[LineIn]


def app() -> FastAPI:
    app = FastAPI()

    @app.get("/get/{order_id}", response_model=OrderOut)
    @app.get("/kept/{order_id}", response_model=OrderOut)
    async def get(order_id: UUID, session: Session) -> Any:
        return await session.get(Order, order_id)

    @app.get("/orders/export")
    async def export(session: Session) -> StreamingResponse:
        query = select(Order).order_by(Order.created_at, Order.id)

        async def lines() -> AsyncIterator[str]:
            rows = await session.stream_scalars(query.execution_options(yield_per=1000))
            async for order in rows:
                yield f"{order.id},{order.customer},{order.status},{order.created_at}\n"

        return StreamingResponse(lines(), media_type="text/csv")

    @app.get("/orders/{order_id}", response_model=OrderWithLines)
    async def detail(order_id: UUID, session: Session) -> Any:
        query = select(Order).where(Order.id == order_id)
        result = await session.execute(query.options(selectinload(Order.lines)))
        if (order := result.scalar_one_or_none()) is None:
            raise HTTPException(404)
        return order

    @app.get("/orders", response_model=list[OrderOut])
    async def page(session: Session, limit: int = 50) -> Any:
        query = select(Order).order_by(Order.created_at.desc(), Order.id.desc())
        return (await session.execute(query.limit(limit))).scalars().all()

    @app.post("/orders", status_code=201, response_model=OrderWithLines)
    async def create(new: OrderIn, session: Session) -> Any:
        lines = [
            OrderLine(position=n, **line.model_dump())
            for n, line in enumerate(new.lines)
        ]
        order = Order(customer=new.customer, lines=lines)
        session.add(order)
        await session.commit()
        await session.refresh(order, ["lines"])
        return order

    @app.get("/slow")
    async def slow(session: Session) -> None:
        await session.execute(text(SLOW))

    return app
