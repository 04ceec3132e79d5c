"""How Alembic reaches the database: one connection, one migration at a time."""

import asyncio
import logging
import time
from contextlib import AbstractContextManager
from textwrap import shorten
from typing import Any

from alembic import context
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.pool import ConnectionPoolEntry

from .dialect import DIALECT, MIGRATION_LIMITS, transactional, try_migration_lock
from .engine import create_unpooled_engine
from .faults import Fault, classify, describe
from .findings import Finding
from .settings import DatabaseSettings
from .types import MIGRATION_OPTIONS

LOCK_POLL_SECONDS = 0.5

logger = logging.getLogger("alembic.runtime.migration")


def run_migrations(metadata: MetaData, settings: type[DatabaseSettings]) -> None:
    """What env.py is for: migrate, or print the SQL with `alembic upgrade --sql`."""
    if context.is_offline_mode():
        _configure(metadata, dialect_name=DIALECT, literal_binds=True)
        _run()
    else:
        asyncio.run(_migrate(metadata, settings.load().direct()))


async def _migrate(metadata: MetaData, settings: DatabaseSettings) -> None:
    engine = create_unpooled_engine(settings)
    event.listen(engine.sync_engine, "connect", _limit)
    try:
        async with engine.connect() as connection:
            has_work = await connection.run_sync(_look, metadata)
        if has_work:
            async with transactional(engine).connect() as connection:
                await connection.run_sync(_run_alone, metadata)
    except DBAPIError as error:
        if classify(error) not in (Fault.BUSY, Fault.TIMEOUT, Fault.UNAVAILABLE):
            raise
        statement = shorten(error.statement or "", 80)
        at = f" at {statement}" if statement else ""
        raise SystemExit(f"Migration stopped{at}: {describe(error)}") from None


def _limit(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(MIGRATION_LIMITS)
    cursor.close()
    connection.commit()  # else they would end with the transaction


def _look(connection: Connection, metadata: MetaData) -> bool:
    """Tell whether there is something to do; most starts of a service have nothing.

    Without the lock and outside of a transaction: whoever looks waits for nobody.
    """
    _configure(metadata, connection=connection, compare_server_default=True)
    try:
        context.get_revision_argument()
    except KeyError:  # alembic current, check, revision: they look, and change nothing
        _run()
        return False
    return _has_something_to_do()


def _run_alone(connection: Connection, metadata: MetaData) -> None:
    _configure(metadata, connection=connection)
    with _migration_lock(connection):
        if _has_something_to_do():  # still, after whoever had the lock before
            _run()


def _has_something_to_do() -> bool:
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
    """One migrates, the others wait for it, and then find nothing left to do.

    By asking again and again: CREATE INDEX CONCURRENTLY waits for every statement
    that was there before it, and so for the ones that wait for the lock.
    """
    waiting = False
    while not (lock := try_migration_lock(connection)):
        connection.rollback()
        if not waiting:
            logger.warning("Another migration is at work: waiting for it.")
        waiting = True
        time.sleep(LOCK_POLL_SECONDS)
    return lock


def _configure(metadata: MetaData, **options: Any) -> None:
    # One transaction each: a long series keeps what it has done when a later one fails.
    context.configure(
        target_metadata=metadata,
        transaction_per_migration=True,
        **MIGRATION_OPTIONS,
        **options,
    )


def _run() -> None:
    with context.begin_transaction():
        context.run_migrations()


async def migrations(connection: AsyncConnection, _: DatabaseSettings) -> Finding:
    """For the doctor: whether the schema is that of this code. Changes nothing."""
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
