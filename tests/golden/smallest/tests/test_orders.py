"""The example feature over HTTP."""

import asyncio
import csv
import json
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx2 import AsyncClient, Response
from sqlalchemy.orm import selectinload

from smallest.db import Database
from smallest.models import Order
from smallest.settings import Settings

ORDER: dict[str, Any] = {
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


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_unknown_order_is_404(client: AsyncClient, method: str) -> None:
    body = {"customer": "bob"} if method == "PATCH" else None
    answer = await client.request(method, f"/orders/{uuid4()}", json=body)

    assert answer.status_code == 404


async def test_changed_order_has_its_lines_and_a_new_time(client: AsyncClient) -> None:
    order = (await create(client)).json()
    path = f"/orders/{order['id']}"
    changed = await client.patch(path, json={"customer": "bob"})

    assert changed.status_code == 200
    assert changed.json() == (await client.get(path)).json()
    assert changed.json()["updated_at"] > order["updated_at"]
    new = {"customer": "bob", "updated_at": changed.json()["updated_at"]}
    assert changed.json() == order | new


async def test_changes_at_once_do_not_undo_each_other(client: AsyncClient) -> None:
    path = f"/orders/{(await create(client)).json()['id']}"
    names = ["bob", "eve", "joe"]
    paid, *changed = await asyncio.gather(
        client.post(f"{path}/pay"),
        *(client.patch(path, json={"customer": name}) for name in names),
    )
    found = (await client.get(path)).json()

    assert paid.is_success
    assert [answer.json()["customer"] for answer in changed] == names
    assert found["customer"] in names
    assert found["status"] != "new"


async def test_lines_of_an_article_have_their_orders(client: AsyncClient) -> None:
    order = (await create(client)).json()["id"]
    await create(client, lines=[ORDER["lines"][1]])
    found = (await client.get("/orders/lines", params={"sku": "tea"})).json()

    assert found == [{"order_id": order, "customer": "ada", "quantity": 2}]


async def test_deleted_order_takes_its_lines_with_it(client: AsyncClient) -> None:
    path = f"/orders/{(await create(client)).json()['id']}"
    deleted = await client.delete(path)

    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await client.get(path)).status_code == 404
    assert (await client.get("/orders/lines", params={"sku": "tea"})).json() == []


async def test_objects_take_their_lines_with_them(
    client: AsyncClient, database: Database
) -> None:
    order_id = UUID((await create(client)).json()["id"])
    loaded = [selectinload(Order.lines)]
    async with database.write() as session:
        order = await session.get(Order, order_id, options=loaded)
        assert order is not None
        del order.lines[0]
    left = (await client.get(f"/orders/{order_id}")).json()["lines"]
    async with database.write() as session:
        await session.delete(await session.get(Order, order_id))

    assert left == ORDER["lines"][1:]
    assert (await client.get(f"/orders/{order_id}")).status_code == 404
    assert (await client.get("/orders/lines", params={"sku": "cup"})).json() == []


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

    found: list[str] = []
    cursor = None
    while cursor or not found:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/orders", params=query)).json()
        found += [order["id"] for order in page["items"]]
        cursor = page["next_cursor"]

    assert found == created[::-1]


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
async def test_wrong_order_is_422_and_leaves_no_row(
    client: AsyncClient, changes: dict[str, object]
) -> None:
    answer = await create(client, **changes)

    assert answer.status_code == 422
    assert (await client.get("/orders")).json()["items"] == []


async def test_made_up_cursor_is_422(client: AsyncClient) -> None:
    answer = await client.get("/orders", params={"cursor": "nonsense"})

    assert answer.status_code == 422


async def test_imported_orders_are_exported(
    client: AsyncClient, settings: Settings
) -> None:
    customers = {f'"last", {number} {"x" * 180}' for number in range(4000)}
    orders = [ORDER | {"customer": customer} for customer in customers]
    assert len(json.dumps(orders)) > settings.max_body_bytes

    answer = await client.post("/orders/import", json=orders)
    exported = await client.get("/orders/export")

    assert (answer.status_code, answer.json()) == (201, {"imported": 4000})
    rows = list(csv.DictReader(StringIO(exported.text)))
    assert len(rows) == 4000
    assert {row["customer"] for row in rows} == customers
    found = (await client.get(f"/orders/{rows[0]['id']}")).json()
    assert found["customer"] == rows[0]["customer"]
    assert found["lines"] == ORDER["lines"]


async def test_import_with_a_wrong_order_takes_none(client: AsyncClient) -> None:
    orders = [ORDER] * 1500 + [ORDER | {"lines": []}]
    answer = await client.post("/orders/import", json=orders)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["at"] == "body.1500.lines"
    assert (await client.get("/orders")).json()["items"] == []
