"""How Alembic reaches the database: one connection of its own."""

import asyncio
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection, MetaData, NullPool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from .base import UTCDateTime
from .connect import DIALECT, connect_args, fault
from .settings import DatabaseSettings


def run_migrations(metadata: MetaData, settings: type[DatabaseSettings]) -> None:
    """What env.py is for: migrate, or print the SQL with `alembic upgrade --sql`."""
    if context.is_offline_mode():
        _run(metadata, dialect_name=DIALECT, literal_binds=True)
    else:
        asyncio.run(_migrate(metadata, settings.load()))


async def _migrate(metadata: MetaData, settings: DatabaseSettings) -> None:
    engine = create_async_engine(
        settings.sqlalchemy_url,
        connect_args=connect_args(settings),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run_online, metadata)
    except DBAPIError as error:
        if fault(error) != "unavailable":
            raise
        raise SystemExit(f"No migration: {error.orig}") from None


def _run_online(connection: Connection, metadata: MetaData) -> None:
    _run(
        metadata,
        connection=connection,
        compare_server_default=True,
        # SQLite cannot alter a column: Alembic copies the table instead.
        render_as_batch=True,
        render_item=_render_item,
    )


def _run(metadata: MetaData, **options: Any) -> None:
    # One transaction each: a long series keeps what it has done when a later one fails.
    context.configure(
        target_metadata=metadata, transaction_per_migration=True, **options
    )
    with context.begin_transaction():
        context.run_migrations()


def _render_item(kind: str, item: Any, _: AutogenContext) -> str | Literal[False]:
    """A migration names the type of the column, not the Python class around it."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    return False
