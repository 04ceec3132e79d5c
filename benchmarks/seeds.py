"""The rows that are read."""

from uuid import UUID

from tests.support.servers import Server

ORDER = UUID(int=1)
ORDERS, LINES = 100, 3
AT = "'2026-01-01 00:00:00'"


def fill(server: Server) -> None:
    """A hundred orders with three lines each, unless they are there."""
    if server.execute("SELECT id FROM orders LIMIT 1"):
        return
    ids = [UUID(int=number).hex for number in range(1, ORDERS + 1)]
    insert(
        *(server, "orders (id, customer, status, created_at, updated_at)"),
        [f"'{each}', 'somebody', 'new', {AT}, {AT}" for each in ids],
    )
    insert(
        *(server, "order_lines (order_id, position, sku, quantity, price_cents)"),
        [f"'{each}', {n}, 'tea', 2, 450" for each in ids for n in range(LINES)],
    )


def insert(server: Server, table: str, rows: list[str]) -> None:
    values = ", ".join(f"({row})" for row in rows)
    server.execute(f"INSERT INTO {table} VALUES {values}")  # noqa: S608
