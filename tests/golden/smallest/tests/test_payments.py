"""Orders are paid once."""

import asyncio
from uuid import uuid4

from httpx2 import AsyncClient

ORDER = {
    "customer": "ada",
    "lines": [{"sku": "tea", "quantity": 2, "price_cents": 450}],
}


async def test_order_that_is_paid_is_not_new(client: AsyncClient) -> None:
    order = (await client.post("/orders", json=ORDER)).json()["id"]
    answer = await client.post(f"/orders/{order}/pay")
    found = (await client.get(f"/orders/{order}")).json()

    assert answer.is_success
    assert found["status"] != "new"


async def test_unknown_order_cannot_be_paid(client: AsyncClient) -> None:
    answer = await client.post(f"/orders/{uuid4()}/pay")

    assert answer.status_code == 404


async def test_of_two_payments_at_once_one_is_409(client: AsyncClient) -> None:
    order = (await client.post("/orders", json=ORDER)).json()["id"]
    answers = await asyncio.gather(
        *(client.post(f"/orders/{order}/pay") for _ in range(2))
    )

    assert {answer.is_success for answer in answers} == {True, False}
    assert max(answer.status_code for answer in answers) == 409
