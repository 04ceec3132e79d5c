"""Bare driver: Starlette, and ten connections in a queue. No ORM, no validation."""

# There is no web framework where mypy runs.
# mypy: disable-error-code="import-not-found"

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from drivers import DRIVER, IS_MYSQL, OPERATIONS, SLOW
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

POOL = 10
COLUMNS = "id, customer, status, created_at, updated_at"
NAMES = COLUMNS.split(", ")


def sql(text: str) -> str:
    """A statement with the placeholders of the driver."""
    if DRIVER != "asyncpg":
        return text.replace("?", "%s")
    first, *rest = text.split("?")
    return first + "".join(f"${n}{part}" for n, part in enumerate(rest, 1))


SELECT_ORDER = sql(f"SELECT {COLUMNS} FROM orders WHERE id = ?")
SELECT_LINES = sql(
    "SELECT sku, quantity, price_cents FROM order_lines WHERE order_id = ?"
    " ORDER BY position"
)
PAGE = sql(f"SELECT {COLUMNS} FROM orders ORDER BY created_at DESC, id DESC LIMIT ?")
INSERT_ORDER = sql(f"INSERT INTO orders ({COLUMNS}) VALUES (?, ?, ?, ?, ?)")
INSERT_LINE = sql(
    "INSERT INTO order_lines (order_id, position, sku, quantity, price_cents)"
    " VALUES (?, ?, ?, ?, ?)"
)
EXPORT = f"SELECT {COLUMNS} FROM orders ORDER BY created_at, id"


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    pool: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
    for _ in range(POOL):
        pool.put_nowait(await OPERATIONS.connect())
    yield {"pool": pool}


@asynccontextmanager
async def connected(request: Request) -> AsyncIterator[Any]:
    connection = await request.state.pool.get()
    try:
        yield connection
    finally:
        request.state.pool.put_nowait(connection)


def key(value: UUID) -> Any:
    return value.hex if IS_MYSQL else value


def order(row: Any) -> dict[str, Any]:
    values = (str(row[0]), row[1], row[2], row[3].isoformat(), row[4].isoformat())
    return dict(zip(NAMES, values, strict=True))


async def one(request: Request) -> JSONResponse:
    order_id = key(UUID(request.path_params["order_id"]))
    async with connected(request) as connection:
        (row,) = await OPERATIONS.fetch(connection, SELECT_ORDER, (order_id,))
    return JSONResponse(order(row))


async def detail(request: Request) -> JSONResponse:
    order_id = key(UUID(request.path_params["order_id"]))
    async with connected(request) as connection:
        (row,) = await OPERATIONS.fetch(connection, SELECT_ORDER, (order_id,))
        lines = await OPERATIONS.fetch(connection, SELECT_LINES, (order_id,))
    names = ("sku", "quantity", "price_cents")
    lines = [dict(zip(names, line, strict=True)) for line in lines]
    return JSONResponse({**order(row), "lines": lines})


async def page(request: Request) -> JSONResponse:
    limit = int(request.query_params["limit"])
    async with connected(request) as connection:
        rows = await OPERATIONS.fetch(connection, PAGE, (limit,))
    return JSONResponse({"items": [order(row) for row in rows]})


async def create(request: Request) -> JSONResponse:
    new = json.loads(await request.body())
    order_id, now = uuid4(), datetime.now(UTC)
    row = (key(order_id), new["customer"], "new", now, now)
    lines = [
        (key(order_id), n, line["sku"], line["quantity"], line["price_cents"])
        for n, line in enumerate(new["lines"])
    ]
    async with connected(request) as connection:
        statements = ((INSERT_ORDER, [row]), (INSERT_LINE, lines))
        await OPERATIONS.write(connection, statements)
    return JSONResponse({**order(row), "lines": new["lines"]}, 201)


async def slow(request: Request) -> JSONResponse:
    async with connected(request) as connection:
        await OPERATIONS.fetch(connection, SLOW, ())
    return JSONResponse(None)


async def export(request: Request) -> StreamingResponse:
    """On asyncpg alone: by a cursor, a thousand rows at a time."""

    async def chunks() -> AsyncIterator[str]:
        async with connected(request) as connection, connection.transaction():
            cursor = await connection.cursor(EXPORT)
            while rows := await cursor.fetch(1000):
                yield "".join(
                    f"{each},{customer},{status},{created_at}\n"
                    for each, customer, status, created_at, _ in rows
                )

    return StreamingResponse(chunks(), media_type="text/csv")


def app() -> Starlette:
    paths = {
        "/get/{order_id}": one,
        "/kept/{order_id}": one,
        "/orders/export": export,
        "/orders/{order_id}": detail,
        "/orders": page,
        "/slow": slow,
    }
    routes = [Route("/orders", create, methods=["POST"])]
    routes += [Route(path, endpoint) for path, endpoint in paths.items()]
    return Starlette(routes=routes, lifespan=lifespan)
