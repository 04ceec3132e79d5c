"""The example feature over HTTP."""

import asyncio
from uuid import uuid4

import pytest
from httpx import AsyncClient, Response

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
    paid = await client.post(f"/orders/{uuid4()}/pay")

    assert (found.status_code, paid.status_code) == (404, 404)


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
    paid = (await create(client, customer="bob")).json()["id"]
    await create(client, customer="bob")
    await create(client)
    await client.post(f"/orders/{paid}/pay")

    query = {"customer": "bob", "status": "paid"}
    found = (await client.get("/orders", params=query)).json()["items"]

    assert [order["id"] for order in found] == [paid]


async def test_of_two_payments_at_once_one_is_409(client: AsyncClient) -> None:
    order = (await create(client)).json()["id"]
    answers = await asyncio.gather(
        *(client.post(f"/orders/{order}/pay") for _ in range(2))
    )

    assert sorted(answer.status_code for answer in answers) == [204, 409]


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
