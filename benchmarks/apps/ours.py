"""The rendered service, with routes that read one row as those of the others do."""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

import gc
import logging
from typing import Any
from uuid import UUID

from drivers import SLOW
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel
from service.db import Read
from service.features import OBSERVERS
from service.main import create_app
from service.models import Order, OrderStatus
from service.orders import SELECT_ORDER, OrderSummary
from service.web import overload
from sqlalchemy import text

SLOW_STATEMENT = text(SLOW)


class Found(BaseModel, from_attributes=True):
    id: UUID
    customer: str
    status: OrderStatus


def app() -> FastAPI:
    app: Any = create_app()

    @app.get("/get/{order_id}", response_model=Found)
    async def get(order_id: UUID, session: Read) -> Any:
        return await session.get(Order, order_id)

    @app.get("/kept/{order_id}")
    async def kept(order_id: UUID, session: Read) -> OrderSummary:
        row = (await session.execute(SELECT_ORDER, {"order_id": order_id})).first()
        if row is None:
            raise HTTPException(404)
        return OrderSummary(*row)

    @app.get("/slow")
    async def slow(session: Read) -> None:
        await session.execute(SLOW_STATEMENT)

    @app.get("/plain")
    async def plain() -> None: ...

    gc.collect()  # as gunicorn.conf.py does, in each worker
    gc.freeze()
    return app


def unobserved() -> FastAPI:
    """A service without metrics of requests, and without their lines in the log."""
    OBSERVERS.clear()
    service = app()
    logging.getLogger("service.web.middleware").setLevel("WARNING")
    return service


def full() -> FastAPI:
    """A service that rejects each request with a session, from GET /fill on.

    Answers are held as ever, but so briefly that clients keep the process busy.
    """
    overload.HOLD_SECONDS = (0.001, 0.002)
    service: Any = app()

    @service.get("/fill")
    async def fill(request: Request) -> None:
        gate = request.state.database.engine.sync_engine.pool.gate
        # What is returned is not free either: of a probe that runs just now.
        type(gate).free = property(lambda _: 0, lambda *_: None)
        gate.predicted_wait = lambda _: 100.0

    return service
