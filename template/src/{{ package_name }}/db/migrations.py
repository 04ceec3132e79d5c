"""Migrations: Alembic on one connection, and one process at a time."""

import asyncio
import logging
import time
from contextlib import AbstractContextManager
from textwrap import shorten
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection, MetaData, TypeDecorator, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import ConnectionPoolEntry

from .config.backend import DIALECT
from .engine.create import create_unpooled_engine
from .engine.dialect import MIGRATION_LIMITS, try_migration_lock, with_transactions
from .engine.types import MIGRATION_OPTIONS
from .errors import FaultKind, classify, safe_message
from .features import DatabaseSettings

LOCK_POLL_SECONDS = 0.5
STOPPED = (FaultKind.BUSY, FaultKind.TIMEOUT, FaultKind.UNAVAILABLE)

logger = logging.getLogger("alembic.runtime.migration")


def run_migrations(metadata: MetaData) -> None:
    """Called by env.py: migrate, or print the SQL with `alembic upgrade --sql`.

    SystemExit names the statement that a limit or a lost server has stopped.
    """
    if context.is_offline_mode():
        _configure(metadata, dialect_name=DIALECT, literal_binds=True)
        _run()
    else:
        asyncio.run(_migrate(metadata, DatabaseSettings.load()))


async def _migrate(metadata: MetaData, settings: DatabaseSettings) -> None:
    engine = create_unpooled_engine(settings.direct(), settings.limits, settings.hooks)
    event.listen(engine.sync_engine, "connect", _set_limits)
    try:
        async with engine.connect() as connection:
            has_work = await connection.run_sync(_has_work, metadata)
        if has_work:
            async with with_transactions(engine).connect() as connection:
                await connection.run_sync(_run_locked, metadata)
    except DBAPIError as error:
        if classify(error) not in STOPPED:
            raise
        statement = shorten(error.statement or "", 80)
        at = f" at {statement}" if statement else ""
        raise SystemExit(f"Migration stopped{at}: {safe_message(error)}") from None


def _set_limits(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(MIGRATION_LIMITS)
    cursor.close()
    connection.commit()  # else the limits would end with the transaction


def _has_work(connection: Connection, metadata: MetaData) -> bool:
    """Most starts of a service have nothing to migrate: find out without the lock and
    outside of a transaction.
    """
    _configure(metadata, connection=connection, compare_server_default=True)
    try:
        context.get_revision_argument()
    except KeyError:  # alembic current, check, revision: they change nothing
        _run()
        return False
    return _is_behind()


def _run_locked(connection: Connection, metadata: MetaData) -> None:
    _configure(metadata, connection=connection)
    with _migration_lock(connection):
        if _is_behind():  # still, after the process that had the lock
            _run()


def _is_behind() -> bool:
    wanted = {*to_tuple(context.get_revision_argument(), default=())}
    current = {*context.get_context().get_current_heads()}
    known = {script.revision for script in context.script.walk_revisions()}
    if current == wanted:
        logger.info("There is nothing to migrate.")
        return False
    if wanted == {*context.script.get_heads()} and not current <= known:
        logger.warning(
            "The schema is ahead of this code, at %s: nothing to migrate.",
            " and ".join(sorted(current - known)),
        )
        return False
    return True


def _migration_lock(connection: Connection) -> AbstractContextManager[Any]:
    """Wait for the lock by asking again and again.

    CREATE INDEX CONCURRENTLY waits for every older statement, and so would wait for
    one that waits for the lock.
    """
    waiting = False
    while not (lock := try_migration_lock(connection)):
        connection.rollback()
        if not waiting:
            logger.warning("Another migration is running: waiting for it.")
        waiting = True
        time.sleep(LOCK_POLL_SECONDS)
    return lock


def _configure(metadata: MetaData, **options: Any) -> None:
    # A transaction for each: a long series keeps what is done when a later one fails.
    context.configure(
        target_metadata=metadata,
        transaction_per_migration=True,
        render_item=_render_item,
        **MIGRATION_OPTIONS,
        **options,
    )


def _render_item(
    kind: str, item: Any, autogenerate: AutogenContext
) -> str | Literal[False]:
    """A migration names the type of the column, not the class of `Base` around it."""
    if not isinstance(item, TypeDecorator) or not _is_ours(item):
        return False
    column = item.impl_instance
    *_, dialects, dialect, _ = type(column).__module__.split(".")
    if dialects != "dialects":
        return f"sa.{column!r}"
    autogenerate.imports.add(f"from sqlalchemy.dialects import {dialect}")
    return f"{dialect}.{column!r}"


def _is_ours(item: object) -> bool:
    return type(item).__module__.startswith(f"{__package__}.")


def _run() -> None:
    with context.begin_transaction():
        context.run_migrations()


async def check_migrations(
    connection: AsyncConnection, _: DatabaseSettings
) -> tuple[str, str]:
    """Check of the doctor: is the schema that of this code? Changes nothing."""
    try:
        scripts = ScriptDirectory.from_config(Config(toml_file="pyproject.toml"))
    except CommandError:
        return "warn", "none here: start the doctor in the folder of the service"
    current = await connection.run_sync(_revisions)
    at = f"at {', '.join(sorted(current)) or 'no revision'}"
    if current == {*scripts.get_heads()}:
        return "ok", at
    if current <= {script.revision for script in scripts.walk_revisions()}:
        return "fail", f"behind, {at}: make migrate"
    return "warn", f"ahead of this code, {at}"


def _revisions(connection: Connection) -> set[str]:
    return {*MigrationContext.configure(connection).get_current_heads()}
