"""How Alembic reaches the database: one connection, with limits of its own."""

import asyncio

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
        context.configure(
            dialect_name=DIALECT,
            target_metadata=metadata,
            literal_binds=True,
            dialect_opts={"paramstyle": "named"},
            transaction_per_migration=True,
        )
        _run()
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
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_server_default=True,
        # A long series keeps what it has done when a later one fails.
        transaction_per_migration=True,
    )
    _run()


def _run() -> None:
    with context.begin_transaction():
        context.run_migrations()
