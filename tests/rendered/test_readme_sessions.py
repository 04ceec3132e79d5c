"""The examples of the README on sessions, as a service has them."""

import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from shop.db import Database
from shop.models import Order
from sqlalchemy import select

README = Path(__file__).parents[1] / "README.md"
IMPORTS = """
from collections.abc import AsyncIterator
from typing import Annotated
from fastapi import Depends, Header, HTTPException, Request
from shop.db import Read, Write, WriteSession
from shop.models import Order
from sqlalchemy import func, select
"""


def examples() -> str:
    (section,) = re.findall(
        r"^## Sessions\n(.*?)^## ", README.read_text(), re.MULTILINE | re.DOTALL
    )
    return "\n".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))


async def test_examples_do_what_they_say(
    app: FastAPI, serve: Any, database: Database
) -> None:
    router = APIRouter(prefix="/examples")
    exec(IMPORTS + examples(), {"router": router})  # noqa: S102
    app.include_router(router)
    ada = {"X-Customer": "ada"}
    async with serve(app) as client:
        stranger = await client.post("/examples/again", headers=ada)
        first = await client.post("/examples/counted")
        again = await client.post("/examples/again", headers=ada)
        tenant = await client.get("/examples/tenant", headers={"X-Tenant": "acme"})

    assert (stranger.status_code, first.status_code, again.status_code) == (
        401,
        201,
        201,
    )
    if "current_setting" in examples():
        assert tenant.json() == "acme"
    async with database.read() as session:
        customers = await session.scalars(select(Order.customer))
        assert sorted(customers) == ["ada", "ada", "counted"]
