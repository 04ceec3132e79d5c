"""The example feature over HTTP."""

import asyncio
import csv
from contextlib import AsyncExitStack, suppress
from io import StringIO
from uuid import uuid4

import pytest
from database import SLOW
from httpx import AsyncClient, Response
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from smallest.db.bulk import export, load
from smallest.db.faults import classify
from smallest.db.session import Database, open_database
from smallest.models import Order
from smallest.settings import Settings

ORDER = {
    "customer": "ada",
    "lines": [
        {"sku": "tea", "quantity": 2, "price_cents": 450},
        {"sku": "cup", "quantity": 1, "price_cents": 1200},
    ],
}


async def create(client: AsyncClient, **changes: object) -> Response:
    return await client.post("/orders", json=ORDER | changes)


async def test_created_order_is_found_with_its_lines(client: AsyncClient) -> None:
    created = await create(client)
    found = await client.get(f"/orders/{created.json()['id']}")

    assert created.status_code == 201
    assert created.json() == found.json()
    assert found.json()["lines"] == ORDER["lines"]
    assert found.json()["status"] == "new"


async def test_unknown_order_is_404(client: AsyncClient) -> None:
    found = await client.get(f"/orders/{uuid4()}")

    assert found.status_code == 404


async def test_second_order_with_one_idempotency_key_is_409(
    client: AsyncClient,
) -> None:
    key = {"Idempotency-Key": "once"}
    first = await client.post("/orders", json=ORDER, headers=key)
    second = await client.post("/orders", json=ORDER, headers=key)

    assert (first.status_code, second.status_code) == (201, 409)
    assert len((await client.get("/orders")).json()["items"]) == 1


async def test_pages_show_every_order_once_and_newest_first(
    client: AsyncClient,
) -> None:
    created = [(await create(client)).json()["id"] for _ in range(5)]

    seen, cursor = [], None
    while cursor or not seen:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/orders", params=query)).json()
        seen += [order["id"] for order in page["items"]]
        cursor = page["next_cursor"]

    assert seen == created[::-1]


async def test_list_filters_by_status_and_customer(client: AsyncClient) -> None:
    order = (await create(client, customer="bob")).json()["id"]
    await create(client)

    found = {}
    for status in ("new", "paid"):
        query = {"customer": "bob", "status": status}
        found[status] = (await client.get("/orders", params=query)).json()["items"]

    assert [each["id"] for each in found["new"]] == [order]
    assert found["paid"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"customer": ""},
        {"customer": "a\x00b"},
        {"lines": []},
        {"lines": [{"sku": "tea", "quantity": 0, "price_cents": 1}]},
        {"lines": [{"sku": "tea", "quantity": 2**70, "price_cents": 1}]},
    ],
)
async def test_wrong_order_is_422_and_leaves_nothing(
    client: AsyncClient, changes: dict[str, object]
) -> None:
    answer = await create(client, **changes)

    assert answer.status_code == 422
    assert (await client.get("/orders")).json()["items"] == []


async def test_made_up_cursor_is_422(client: AsyncClient) -> None:
    answer = await client.get("/orders", params={"cursor": "bm9uc2Vuc2U="})

    assert answer.status_code == 422


async def test_what_is_imported_is_exported(
    client: AsyncClient, settings: Settings
) -> None:
    rows = ["customer,sku,quantity,price_cents\n"]
    rows += [f'"last, {n} {"x" * 180}",tea,1,450\n' for n in range(6000)]
    body = "".join(rows)
    assert len(body) > settings.max_body_bytes

    answer = await client.post("/orders/import", content=body)
    exported = await client.get("/orders/export")

    assert (answer.status_code, answer.json()) == (201, {"imported": 6000})
    orders = list(csv.DictReader(StringIO(exported.text)))
    assert {order["customer"].split()[1] for order in orders} == {
        str(n) for n in range(6000)
    }
    found = await client.get(f"/orders/{orders[0]['id']}")
    assert found.json()["customer"] == orders[0]["customer"]
    assert found.json()["lines"][0]["price_cents"] == 450


@pytest.mark.parametrize("line", ["ada,tea,0,450", "ada,tea", b"\xff,tea,1,450"])
async def test_import_with_a_wrong_line_takes_none(
    client: AsyncClient, line: str | bytes
) -> None:
    good = b"customer,sku,quantity,price_cents\n" + 1500 * b"ada,tea,1,450\n"
    wrong = line.encode() if isinstance(line, str) else line
    answer = await client.post("/orders/import", content=good + wrong)

    assert answer.status_code == 422
    assert "Line 1502" in answer.text
    assert (await client.get("/orders")).json()["items"] == []


async def test_exports_leave_most_of_the_pool_to_others(settings: Settings) -> None:
    async with open_database(settings) as database, AsyncExitStack() as all_exports:
        for _ in range(settings.exports_at_once):
            await all_exports.enter_async_context(export(database))
        brief = {"database_acquire_timeout_seconds": 0.1}
        database.settings = settings.model_copy(update=brief)
        one_more = asyncio.create_task(export(database).__aenter__())

        async with database.read() as session:
            assert await session.scalar(select(1)) == 1
        with pytest.raises(PoolTimeoutError, match="exports"):
            await one_more


@pytest.mark.parametrize("slow", ["reader", "database"])
async def test_export_that_takes_too_long_ends_and_frees_its_place(
    settings: Settings, slow: str
) -> None:
    limits = {"database_export_timeout_seconds": 0.2, "database_pool_size": 4}
    async with open_database(settings.model_copy(update=limits)) as database:
        for _ in range(2):  # there is one place
            with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
                async with export(database) as connection:
                    if slow == "database":
                        await connection.stream(text(SLOW))
                    await asyncio.sleep(60)
            assert classify(caught.value) == "timeout"


async def test_load_in_which_a_statement_has_failed_loads_nothing(
    client: AsyncClient, database: Database
) -> None:
    order = {"id": uuid4(), "customer": "ada"}

    async def swallow() -> None:
        async with load(database) as connection:
            await connection.execute(insert(Order), [order])
            with suppress(IntegrityError):
                await connection.execute(insert(Order), [order])

    with pytest.raises(InvalidRequestError):
        await swallow()

    assert (await client.get("/orders")).json()["items"] == []
