"""The example is what gets copied: its statements are built once."""

from collections.abc import Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from sqlalchemy import Engine, event

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
