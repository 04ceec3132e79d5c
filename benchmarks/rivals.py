"""What is measured: each function is an application that answers GET /probe/{order_id}.

They run in the environment of the rendered service, whose package is `service`.
"""

# Only where they are used: `bare` must not pay for the imports of the others.
# ruff: noqa: PLC0415
# There is no web framework where mypy runs.
# mypy: disable-error-code="import-not-found"

import gc
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

import asyncpg
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PATH = "/probe/{order_id}"
SELECT = """
    SELECT id, customer, status, created_at, idempotency_key FROM orders WHERE id = $1
"""


def bare() -> FastAPI:
    """Build the fastest start: the same imports, and no use of them."""

    async def live() -> dict[str, str]:
        return {"status": "alive"}

    app = FastAPI()
    app.add_api_route("/livez", live)
    return app


def limit() -> Starlette:
    """Build Starlette on asyncpg's own pool: no ORM, no validation, one round trip."""

    async def no_reset(connection: asyncpg.Connection) -> None:
        """Take the place of the pool's own reset, which is a second query."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, asyncpg.Pool]]:
        async with asyncpg.create_pool(
            os.environ["DATABASE_URL"], min_size=10, max_size=10, reset=no_reset
        ) as pool:
            yield {"pool": pool}

    async def read(request: Request) -> JSONResponse:
        order_id = UUID(request.path_params["order_id"])
        row = await request.state.pool.fetchrow(SELECT, order_id)
        return JSONResponse(
            {
                "id": str(row["id"]),
                "customer": row["customer"],
                "status": row["status"],
                "created_at": row["created_at"].isoformat(),
            }
        )

    return Starlette(routes=[Route(PATH, read)], lifespan=lifespan)


class Found(BaseModel, from_attributes=True):
    id: UUID
    customer: str
    status: str
    created_at: datetime


def articles() -> FastAPI:
    """Build the wiring of most tutorials: pre-ping, and sessions as they come."""
    from service.models import Order

    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=0)

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session

    async def read(
        order_id: UUID, session: Annotated[AsyncSession, Depends(get_session)]
    ) -> Order | None:
        return await session.get(Order, order_id)

    app = FastAPI()
    app.add_api_route(PATH, read, response_model=Found)
    return app


def rendered() -> FastAPI:
    """Build the rendered service, and a route that reads one row as the others do."""
    from service.db import Read
    from service.main import create_app
    from service.models import Order

    async def read(order_id: UUID, session: Read) -> Order | None:
        return await session.get(Order, order_id)

    app = create_app()
    app.add_api_route(PATH, read, response_model=Found)
    gc.collect()  # as gunicorn.conf.py does, in each worker
    gc.freeze()
    return app


def stock() -> FastAPI:
    """Build the same service on the pool that SQLAlchemy brings, and its queue."""
    from service.db.engine import create

    create.FairPool = AsyncAdaptedQueuePool
    create.instrument = lambda *_, **__: None  # the metrics are those of FairPool
    return rendered()
