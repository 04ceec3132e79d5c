"""Options of `make revision` and `alembic check`: yours, no update touches them."""

from typing import Any, Literal

from sqlalchemy import Column

# Tables without a model that no revision may drop, and tables with a model that none
# may create: names, or patterns as in "legacy_*" and "audit.*". Partitions and tables
# of extensions are left alone anyway.
IGNORED_TABLES: list[str] = []

# Schemas to compare in which no model is: those of the models are compared anyway.
SCHEMAS: list[str] = []


def compare_type(inspected: Column[Any], declared: Column[Any]) -> bool | None:
    """Whether the types of a column differ; None: as Alembic compares them."""
    return None


def compare_server_default(
    inspected: Column[Any], declared: Column[Any]
) -> bool | None:
    """Whether the server defaults of a column differ; None: as the server has them."""
    return None


def render_item(kind: str, item: Any, context: Any) -> str | Literal[False]:
    """The code of a "type" and other items in a revision; `context.imports` takes its
    import. False: as Alembic writes it.
    """
    return False
