"""Each order in payment is paid once, however often its task is delivered."""

import json
from base64 import b64decode
from uuid import UUID

import pytest
from httpx2 import AsyncClient
from redis import Redis

from largest.db import Database
from largest.payments import pay, sweep
from largest.worker.app import celery

QUEUE = "largest:celery"
ORDER = {
    "customer": "ada",
    "lines": [{"sku": "tea", "quantity": 2, "price_cents": 450}],
}


@pytest.fixture
def queue(client: AsyncClient) -> Redis:
    """Empty, and no worker takes from it. The app of the client names the broker."""
    queue = Redis.from_url(celery.conf.broker_url)
    queue.delete(QUEUE)
    return queue


async def in_payment(client: AsyncClient) -> UUID:
    order = (await client.post("/orders", json=ORDER)).json()["id"]
    answer = await client.post(f"/orders/{order}/pay")

    assert (answer.status_code, answer.json()) == (202, {"status": "paying"})
    return UUID(order)


async def test_payment_is_published_and_made_once(
    client: AsyncClient, database: Database, queue: Redis
) -> None:
    order = await in_payment(client)
    for _ in range(2):
        await pay.function(database, order)

    assert queue.llen(QUEUE) == 1
    assert (await client.get(f"/orders/{order}")).json()["status"] == "paid"


async def test_new_order_is_not_paid(client: AsyncClient, database: Database) -> None:
    order = UUID((await client.post("/orders", json=ORDER)).json()["id"])
    await pay.function(database, order)

    assert (await client.get(f"/orders/{order}")).json()["status"] == "new"


async def test_task_that_the_queue_has_lost_is_published_again(
    client: AsyncClient, database: Database, queue: Redis
) -> None:
    lost, done = await in_payment(client), await in_payment(client)
    await pay.function(database, done)
    queue.delete(QUEUE)
    await sweep.function(database)

    (message,) = queue.lrange(QUEUE, 0, -1)
    arguments, _, _ = json.loads(b64decode(json.loads(message)["body"]))
    assert UUID(arguments[0]["__value__"]["hex"]) == lost
