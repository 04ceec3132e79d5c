"""What autogenerate leaves out of a revision: schemas, sequences, deferred keys."""

import logging
from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import (
    CreateTableOp,
    ExecuteSQLOp,
    MigrationScript,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy.schema import CreateSchema, CreateSequence, DropSequence

from .dialect import add_statements, check_schemas
from .order import set_order

logger = logging.getLogger("alembic.autogenerate")


def complete_revision(
    context: MigrationContext, _: Any, directives: list[MigrationScript]
) -> None:
    """Called by Alembic before the revision is written; an empty one is not."""
    (script,) = directives
    upgrade: Any = script.upgrade_ops
    downgrade: Any = script.downgrade_ops
    set_order(context, upgrade, downgrade)
    add_statements(context, upgrade, downgrade)
    _add_sequences(context, upgrade, downgrade)
    _add_schemas(context, upgrade)
    is_revision = context.config and getattr(
        context.config.cmd_opts, "autogenerate", False
    )
    # `alembic check` still needs what it has compared.
    if is_revision and upgrade.is_empty():
        logger.warning("The migrations lead to the models: there is nothing to write.")
        directives.clear()


def _add_schemas(context: MigrationContext, upgrade: OpContainer) -> None:
    """A downgrade drops no schema: others may have tables in it."""
    connection: Any = context.connection
    tables = [op for op in upgrade.ops if isinstance(op, CreateTableOp)]
    created = {table.schema for table in tables if table.schema}
    missing = sorted(created - {*sa.inspect(connection).get_schema_names()})
    check_schemas(missing)
    upgrade.ops[:0] = [
        _execute(connection, CreateSchema(name, if_not_exists=True)) for name in missing
    ]


def _add_sequences(
    context: MigrationContext, upgrade: OpContainer, downgrade: OpContainer
) -> None:
    connection = context.connection
    if not connection or not connection.dialect.supports_sequences:
        return
    metadata: sa.MetaData = context.opts["target_metadata"]
    for sequence in metadata._sequences.values():
        if not sa.inspect(connection).has_sequence(sequence.name, sequence.schema):
            upgrade.ops.insert(0, _execute(connection, CreateSequence(sequence)))
            downgrade.ops.append(_execute(connection, DropSequence(sequence)))


def _execute(connection: sa.Connection, element: Any) -> ExecuteSQLOp:
    return ExecuteSQLOp(str(element.compile(dialect=connection.dialect)).strip())
