"""Migrations of PostgreSQL: limits, a lock, and what autogenerate does not know:
partitions, extensions, enum types.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.ddl import postgresql
from alembic.operations.ops import (
    DropColumnOp,
    DropTableOp,
    ExecuteSQLOp,
    ModifyTableOps,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from alembic.util import sqla_compat
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ENUM, dialect
from sqlalchemy.types import TypeDecorator

from .render import ExactExpressions

# An index may take an hour to build. A lock may not: every statement behind a waiting
# ALTER TABLE waits too.
MIGRATION_LIMITS = (
    "SET lock_timeout = '5s'",
    "SET statement_timeout = '1h'",
    "SET idle_in_transaction_session_timeout = '1h'",
)
# Partitions and other children of a table; tables that an extension has brought.
UNMODELED_QUERY = """
SELECT nullif(nspname, current_schema()), relname
FROM pg_class JOIN pg_namespace AS schemas ON schemas.oid = relnamespace
WHERE EXISTS (SELECT FROM pg_inherits WHERE inhrelid = pg_class.oid)
    OR EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass
        AND objid = pg_class.oid AND deptype = 'e')
"""
# The only style that leaves % as it is.
DIALECT: Any = dialect(paramstyle="named")  # type: ignore[no-untyped-call]

# By schema and name of the type.
Enums = dict[tuple[str | None, str], list[str]]


class PostgresqlImpl(ExactExpressions, postgresql.PostgresqlImpl):  # type: ignore[misc]
    """In place of Alembic's."""

    __dialect__ = "postgresql"

    def correct_for_autogen_foreignkeys(
        self,
        conn_fks: set[sa.ForeignKeyConstraint],
        metadata_fks: set[sa.ForeignKeyConstraint],
    ) -> None:
        """A key to a table in schema="public" is read as one to a table in none."""
        inspected = {self._key(key): key for key in conn_fks}
        for key in [*metadata_fks]:
            if same := inspected.get(self._key(key)):
                metadata_fks.remove(key)
                conn_fks.remove(same)

    def _key(self, key: sa.ForeignKeyConstraint) -> tuple[Any, ...]:
        nothing = (None, False, self.dialect.default_schema_name)
        spec = sqla_compat._fk_spec(key)
        return key.name, *("" if part in nothing else str(part) for part in spec)


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the migration lock of this database; None while it is taken.

    The server releases it with the connection, so also when a migration is killed.
    """
    query = "SELECT pg_try_advisory_lock(hashtext('alembic'))"
    return nullcontext() if connection.exec_driver_sql(query).scalar() else None


def unmodeled_tables(connection: Connection) -> set[tuple[str | None, str]]:
    """Schema and name of the tables that are not for a model to describe."""
    rows = connection.exec_driver_sql(UNMODELED_QUERY)
    return {(schema, name) for schema, name in rows}


def check_schemas(_: Iterable[str]) -> None:
    """A database may have any number of them."""


def render_named_type(type_: Any, context: AutogenContext) -> str | None:
    """An enum without the statement that creates its type; None for another type."""
    if type_._variant_mapping or not _is_named_enum(type_):
        return None
    context.imports.add("from sqlalchemy.dialects import postgresql")
    arguments = [*map(repr, type_.enums), f"name={type_.name!r}"]
    arguments += [f"schema={type_.schema!r}"] if type_.schema else []
    return f"postgresql.ENUM({', '.join(arguments)}, create_type=False)"


def add_statements(
    context: MigrationContext, upgrade: OpContainer, downgrade: OpContainer
) -> None:
    """Types of enums: DROP TABLE leaves those of its columns, and CREATE TABLE cannot
    share one with another table.
    """
    metadata: sa.MetaData = context.opts["target_metadata"]
    modeled = _enums(c.type for t in metadata.tables.values() for c in t.columns)
    dropped = _enums(_dropped_types(upgrade.ops))
    existing = _existing_enums(context.connection)
    first: list[str] = []
    for key, labels in modeled.items():
        if key in existing:
            first += _add_values(key, labels, existing[key])
        else:
            first.append(_create(key, labels))
            downgrade.ops.append(ExecuteSQLOp(f"DROP TYPE {_name(key)}"))
    for key in dropped.keys() - modeled.keys():
        upgrade.ops.append(ExecuteSQLOp(f"DROP TYPE {_name(key)}"))
        downgrade.ops.insert(0, ExecuteSQLOp(_create(key, dropped[key])))
    upgrade.ops[:0] = map(ExecuteSQLOp, first)


def _enums(types: Iterable[Any]) -> Enums:
    found: Enums = {}
    for each in types:
        type_ = each._variant_mapping.get("postgresql", each)
        if isinstance(type_, TypeDecorator):
            type_ = type_.load_dialect_impl(DIALECT)
        if isinstance(type_, sa.ARRAY):
            type_ = type_.item_type
        if _is_named_enum(type_):
            found[type_.schema, type_.name] = type_.enums
    return found


def _is_named_enum(type_: Any) -> bool:
    """Whether a revision creates the type: not with create_type=False."""
    is_native = isinstance(type_, sa.Enum) and type_.native_enum and type_.name
    return bool(is_native and getattr(type_, "create_type", True))


def _existing_enums(connection: Any) -> Enums:
    inspector = sa.inspect(connection)
    default = {inspector.default_schema_name: None}
    return {
        (default.get(each["schema"], each["schema"]), each["name"]): each["labels"]
        for each in inspector.get_enums(schema="*")
    }


def _dropped_types(operations: Iterable[Any]) -> Iterator[Any]:
    for each in operations:
        if isinstance(each, ModifyTableOps):
            yield from _dropped_types(each.ops)
        elif isinstance(each, DropTableOp):
            yield from (column.type for column in each.to_table().columns)
        elif isinstance(each, DropColumnOp):
            yield each.to_column().type


def _add_values(
    key: tuple[str | None, str], wanted: list[str], existing: list[str]
) -> Iterator[str]:
    """PostgreSQL cannot remove a value: a downgrade leaves it there."""
    for before, label in zip(["", *wanted], wanted, strict=False):
        if label not in existing:
            after = f" AFTER {_literal(before)}" if before else ""
            yield (
                f"ALTER TYPE {_name(key)} ADD VALUE IF NOT EXISTS"
                f" {_literal(label)}{after}"
            )


def _create(key: tuple[str | None, str], labels: list[str]) -> str:
    return f"CREATE TYPE {_name(key)} AS ENUM ({', '.join(map(_literal, labels))})"


def _name(key: tuple[str | None, str]) -> str:
    schema, name = key
    enum = ENUM(name=name, schema=schema)
    return str(DIALECT.identifier_preparer.format_type(enum))


def _literal(label: str) -> str:
    # op.execute() would take :label for a parameter.
    return "'" + label.replace("'", "''").replace(":", r"\:") + "'"
