"""The number of round trips that each request of the example takes."""

import asyncio
import json
from unittest import mock

import uvloop
from httpx2 import ASGITransport, AsyncClient
from shop.db import Base, open_database
from shop.main import create_app
from shop.settings import Settings

from tests.support.proxy import Proxy

LINE = {"sku": "tea", "quantity": 2, "price_cents": 450}
ORDER = {"customer": "ada", "lines": [LINE, LINE]}


async def count(client, proxy):
    """Each twice: a driver prepares a statement when it is new."""
    counted = {}
    for _ in range(2):
        id_ = (await client.post("/orders", json=ORDER)).raise_for_status().json()["id"]
        for name, method, path, body in (
            ("create", "POST", "/orders", ORDER),
            ("get", "GET", f"/orders/{id_}", None),
            ("list", "GET", "/orders", None),
            ("lines", "GET", "/orders/lines?sku=tea", None),
            ("update", "PATCH", f"/orders/{id_}", {"customer": "bob"}),
            ("delete", "DELETE", f"/orders/{id_}", None),
            ("live", "GET", "/livez", None),
        ):
            proxy.reset()
            (await client.request(method, path, json=body)).raise_for_status()
            counted[name] = proxy.round_trips
    return counted


async def main():
    settings = Settings.load()
    async with open_database(settings) as direct, direct.engine.connect() as connection:
        await connection.run_sync(Base.metadata.create_all)
    with Proxy(settings.database_host, settings.database_port) as proxy:
        through = {"database_port": proxy.port, "database_sslmode": "disable"}
        app = create_app(settings.model_copy(update=through))
        async with app.router.lifespan_context(app) as state:

            async def with_state(scope, receive, send):
                await app(scope | {"state": dict(state)}, receive, send)

            served = ASGITransport(with_state)
            async with AsyncClient(transport=served, base_url="http://test") as client:
                while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                # However long a busy machine lets a connection rest.
                with mock.patch("shop.db.engine.validation.IDLE_SECONDS", 3600):
                    print(json.dumps(await count(client, proxy)))


uvloop.run(main())
