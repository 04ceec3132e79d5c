"""How Alembic reaches the database: one connection, with limits of its own."""

import asyncio
from typing import Any

from alembic import context
from sqlalchemy import Connection, MetaData, NullPool
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from .connect import DIALECT, connect_args, fault
from .settings import DatabaseSettings

# An index may take an hour to build; a lock must not, because everybody who comes
# after a waiting ALTER TABLE waits with it.
LIMITS = {
    "database_lock_timeout_seconds": 5,
    "database_statement_timeout_seconds": 3600,
    "database_client_timeout_seconds": 3660,
    "database_idle_in_transaction_timeout_seconds": 3600,
}


def run_migrations(metadata: MetaData, settings: type[DatabaseSettings]) -> None:
    """What env.py is for: migrate, or print the SQL with `alembic upgrade --sql`."""
    if context.is_offline_mode():
        _run(metadata, dialect_name=DIALECT, literal_binds=True)
    else:
        asyncio.run(_migrate(metadata, settings.load().model_copy(update=LIMITS)))


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
    _run(metadata, connection=connection, compare_server_default=True)


def _run(metadata: MetaData, **options: Any) -> None:
    # One transaction each: a long series keeps what it has done when a later one fails.
    context.configure(
        target_metadata=metadata, transaction_per_migration=True, **options
    )
    with context.begin_transaction():
        context.run_migrations()
