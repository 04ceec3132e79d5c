"""Run of migrations: Alembic on one connection, and one process at a time."""

import asyncio
import logging
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

from alembic import context
from alembic.util import CommandError, to_tuple
from sqlalchemy import Connection, MetaData, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, SAWarning
from sqlalchemy.pool import ConnectionPoolEntry

from ..config.backend import DIALECT
from ..engine.create import create_unpooled_engine
from ..engine.dialect import with_transactions
from ..engine.types import MIGRATION_OPTIONS
from ..errors import FaultKind, classify, safe_message
from ..features import DatabaseSettings
from .dialect import MIGRATION_LIMITS, try_migration_lock
from .options import autogenerate_options

# context.configure() with the connection, or without one.
Configure = Callable[..., None]

LOCK_POLL_SECONDS = 0.5
STOPPED = (FaultKind.BUSY, FaultKind.TIMEOUT, FaultKind.UNAVAILABLE)

logger = logging.getLogger("alembic.runtime.migration")


def run_migrations(metadata: MetaData, options: Path | None = None) -> None:
    """Called by env.py: migrate, or print the SQL with `alembic upgrade --sql`.

    `options` is the file of the owner's, if there is one. SystemExit names the
    statement that a limit or a lost server has stopped.
    """
    configure = partial(
        context.configure,
        target_metadata=metadata,
        # A long series keeps what is done when a later one fails.
        transaction_per_migration=True,
        **MIGRATION_OPTIONS,
        **autogenerate_options(metadata, options),
    )
    if context.is_offline_mode():
        named = {"paramstyle": "named"}  # the others would print % as %%
        configure(dialect_name=DIALECT, dialect_opts=named, literal_binds=True)
        for statement in MIGRATION_LIMITS:
            context.get_context().impl.static_output(f"{statement};")
        _run()
    else:
        asyncio.run(_migrate(configure, DatabaseSettings.load()))


async def _migrate(configure: Configure, settings: DatabaseSettings) -> None:
    engine = create_unpooled_engine(settings.direct(), settings.limits, settings.hooks)
    event.listen(engine.sync_engine, "connect", _set_limits)
    try:
        async with engine.connect() as connection:
            has_work = await connection.run_sync(_has_work, configure)
        if has_work:
            async with with_transactions(engine).connect() as connection:
                await connection.run_sync(_run_locked, configure)
    except DBAPIError as error:
        if classify(error) not in STOPPED:
            raise
        statement = shorten(error.statement or "", 80)
        at = f" at {statement}" if statement else ""
        raise SystemExit(f"Migration stopped{at}: {safe_message(error)}") from None


def _set_limits(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    for statement in MIGRATION_LIMITS:
        cursor.execute(statement)
    cursor.close()
    connection.commit()  # else the limits would end with the transaction


def _has_work(connection: Connection, configure: Configure) -> bool:
    """Most starts of a service have nothing to migrate: find out without the lock and
    outside of a transaction.
    """
    configure(connection=connection)
    try:
        _revision_argument()
    except KeyError:  # alembic current, check, revision: they change nothing
        _run()
        return False
    return _is_behind()


def _run_locked(connection: Connection, configure: Configure) -> None:
    configure(connection=connection)
    with _migration_lock(connection):
        if _is_behind():  # still, after the process that had the lock
            _run()


def _revision_argument() -> Any:
    """KeyError if the command has none; CommandError if there are two heads."""
    try:
        return context.get_revision_argument()
    except CommandError:
        if len(heads := context.script.get_heads()) < 2:
            raise
        raise CommandError(
            f"{' and '.join(sorted(heads))} are both the newest revision: join them by"
            ' `uv run alembic merge heads -m "join"`, or name one.'
        ) from None


def _is_behind() -> bool:
    wanted = {*to_tuple(_revision_argument(), default=())}
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


def _run() -> None:
    with warnings.catch_warnings(), context.begin_transaction():
        # Of keys in a circle, which a revision creates last: see order.py.
        warnings.filterwarnings("ignore", "Cannot correctly sort tables", SAWarning)
        context.run_migrations()
