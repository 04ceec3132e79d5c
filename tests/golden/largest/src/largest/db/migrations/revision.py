"""What autogenerate leaves out of a revision: schemas, sequences, deferred keys."""

import logging
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import (
    CreateForeignKeyOp,
    CreateTableOp,
    DropIndexOp,
    DropTableOp,
    ExecuteSQLOp,
    MigrationScript,
    ModifyTableOps,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy.schema import CreateSchema, CreateSequence, DropSequence

from .dialect import add_statements, check_schemas

logger = logging.getLogger("alembic.autogenerate")


def complete_revision(
    context: MigrationContext, _: Any, directives: list[MigrationScript]
) -> None:
    """Called by Alembic before the revision is written; an empty one is not."""
    (script,) = directives
    upgrade: Any = script.upgrade_ops
    downgrade: Any = script.downgrade_ops
    keys = _deferred_keys(context, upgrade.ops)
    upgrade.ops = [*_without_indexes(upgrade.ops), *keys]
    backwards = [key.reverse() for key in reversed(keys)]
    downgrade.ops = [*backwards, *_without_indexes(downgrade.ops)]
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


def _without_indexes(operations: list[Any]) -> list[Any]:
    """DROP TABLE drops them too; the index of a foreign key may be refused before."""
    dropped = {
        (op.schema, op.table_name) for op in operations if isinstance(op, DropTableOp)
    }
    for op in operations:
        if isinstance(op, ModifyTableOps) and (op.schema, op.table_name) in dropped:
            op.ops = [each for each in op.ops if not isinstance(each, DropIndexOp)]
    return [op for op in operations if not isinstance(op, ModifyTableOps) or op.ops]


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


def _deferred_keys(
    context: MigrationContext, operations: Iterable[Any]
) -> list[CreateForeignKeyOp]:
    """Take the foreign keys to tables that come later out of CREATE TABLE."""
    if not context.dialect.supports_alter:
        return []  # there the other table may come later
    tables = [op for op in operations if isinstance(op, CreateTableOp)]
    deferred: list[Any] = []
    for number, table in enumerate(tables):
        later = {(op.schema, op.table_name) for op in tables[number + 1 :]}
        keys: list[Any] = [key for key in table.columns if _is_deferred(key, later)]
        table.columns = [
            each for each in table.columns if id(each) not in {*map(id, keys)}
        ]
        deferred += [CreateForeignKeyOp.from_constraint(key) for key in keys]
    return deferred


def _is_deferred(item: Any, later: set[tuple[str | None, str]]) -> bool:
    if not isinstance(item, sa.ForeignKeyConstraint):
        return False
    other = item.referred_table
    return item.use_alter or (other.schema, other.name) in later


def _execute(connection: sa.Connection, element: Any) -> ExecuteSQLOp:
    return ExecuteSQLOp(str(element.compile(dialect=connection.dialect)).strip())
