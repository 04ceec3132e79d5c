"""The example is what gets copied: its statements are built once."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from shop.db import Database, Keyset
from shop.db.config.backend import DIALECT
from shop.models import Order
from shop.orders import PAGES, _page
from sqlalchemy import DateTime, Engine, event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

LINE = {"sku": "tea", "quantity": 2, "price_cents": 450}
ORDER = {"customer": "ada", "lines": [LINE, LINE]}
# The statements of each request.
REQUESTS: dict[str, tuple[str, str, Any, int]] = {
    "create": ("POST", "/orders", ORDER, 2),
    "import": ("POST", "/orders/import", [ORDER], 2),
    "get": ("GET", "/orders/{}", None, 2),
    "list": ("GET", "/orders", None, 1),
    "page of a customer": ("GET", "/orders?customer=ada&limit=1", None, 1),
    "lines": ("GET", "/orders/lines?sku=tea", None, 1),
    "update": ("PATCH", "/orders/{}", {"customer": "bob"}, 3),
    "delete": ("DELETE", "/orders/{}", None, 1),
}


@pytest.fixture
def executed() -> Iterator[list[Any]]:
    """What was executed on the tables of the example, on any engine."""
    statements: list[Any] = []

    def note(_: object, statement: Any, *__: object) -> None:
        if "order" in str(statement):
            statements.append(statement)

    event.listen(Engine, "before_execute", note)
    yield statements
    event.remove(Engine, "before_execute", note)


@pytest.mark.parametrize("name", REQUESTS)
async def test_request_of_the_example_builds_no_statement(
    client: AsyncClient, executed: list[Any], name: str
) -> None:
    method, path, body, number = REQUESTS[name]
    runs = []
    for _ in range(2):
        created = await client.post("/orders", json=ORDER)
        executed.clear()
        path_of_order = path.format(created.json()["id"])
        answer = await client.request(method, path_of_order, json=body)
        assert answer.is_success, answer.text
        runs.append([*executed])

    first, second = runs
    assert len(second) == number
    assert [*map(id, second)] == [*map(id, first)]


@pytest.mark.parametrize(
    ("digits", "number"),
    [("0" * 18, 0), ("3155378975" + "9" * 8, 1), ("3" + "9" * 17, 1)],
)
async def test_page_after_a_made_up_cursor(
    client: AsyncClient, digits: str, number: int
) -> None:
    """Of the year 1, of the end of the year 9999, and after it."""
    await client.post("/orders", json=ORDER)
    answer = await client.get("/orders", params={"cursor": digits + "0" * 32})

    assert answer.status_code == 200, answer.text
    assert len(answer.json()["items"]) == number


@pytest.mark.parametrize("turn", ["first", "second"])
async def test_rows_of_a_test_without_an_app_are_gone_after_it(
    database: Database, turn: str
) -> None:
    async with database.write() as session:
        session.add(Order(customer=turn, idempotency_key="the same"))


def test_keyset_rejects_a_time_without_a_zone() -> None:
    class Base(DeclarativeBase):
        pass

    class Visit(Base):
        __tablename__ = "visits"
        id: Mapped[UUID] = mapped_column(primary_key=True)
        at: Mapped[datetime] = mapped_column(DateTime)

    with pytest.raises(TypeError, match=r"Visit\.at has no time zone"):
        Keyset(Visit.at, Visit.id)


if DIALECT == "mysql":

    async def test_far_page_reads_few_rows(
        client: AsyncClient, database: Database
    ) -> None:
        """MySQL compares a row with a row by reading all that come before it."""
        answer = await client.post("/orders/import", json=[ORDER] * 500)
        assert answer.json() == {"imported": 500}
        values = PAGES.values("2" + "9" * 17 + "f" * 32) | {"limit": 500}
        page = _page(*map(bool, ("", "", "cursor")))
        seen = text("SHOW SESSION STATUS LIKE 'Handler_read%'")
        async with database.write() as session:
            rows = (await session.execute(page, values)).all()
            far = PAGES.values(PAGES.cursor(rows[-3])) | {"limit": 2}
            before = sum(int(row[1]) for row in await session.execute(seen))
            found = (await session.execute(page, far)).all()
            after = sum(int(row[1]) for row in await session.execute(seen))

        assert found == rows[-2:]
        assert after - before < 100
