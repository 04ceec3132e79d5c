"""Migrations of SQLite: a limit, a lock, and what autogenerate does not know: virtual
tables, indexes of expressions.
"""

import fcntl
import re
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import sqlalchemy as sa
from alembic.ddl import sqlite
from alembic.operations.ops import (
    CreateIndexOp,
    CreateTableOp,
    DropIndexOp,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.schema import CreateIndex

from .render import ExactExpressions

# A migration may wait for a writer of the service.
MIGRATION_LIMITS = ("PRAGMA busy_timeout=60000",)
# Tables of FTS5 and other modules, and the tables in which these keep their data.
UNMODELED_QUERY = (
    "SELECT name FROM pragma_table_list WHERE type IN ('virtual', 'shadow')"
)
# The statements of indexes that have an expression in them, or an order.
INDEX_QUERY = """
SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND EXISTS (
    SELECT 1 FROM pragma_index_xinfo(sqlite_master.name)
    WHERE key AND (cid = -2 OR "desc"))
"""


class SQLiteImpl(ExactExpressions, sqlite.SQLiteImpl):  # type: ignore[misc]
    """In place of Alembic's, which leaves such an index out of a revision."""

    __dialect__ = "sqlite"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # SQLAlchemy cannot read it either, and says so each time.
        warnings.filterwarnings("ignore", "Skipped unsupported reflection of expr")

    def correct_for_autogen_constraints(
        self, _: Any, inspected: set[sa.Index], __: Any, declared: set[sa.Index]
    ) -> None:
        """Leave them to add_statements(), which would write them once more."""
        names = {index.name for index in declared if _has_expression(index)}
        for table in {index.table for index in inspected if index.table is not None}:
            existing = _existing(self.connection, table.name).values()
            names |= {index.name for index in existing}
        for indexes in (inspected, declared):
            indexes -= {index for index in indexes if index.name in names}


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the migration lock of this file; None while it is taken.

    The system releases it with the process, so also when a migration is killed.
    """
    file = open(f"{connection.engine.url.database}.migrate", "w")  # noqa: SIM115
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def unmodeled_tables(connection: Connection) -> set[tuple[str | None, str]]:
    """Schema and name of the tables that are not for a model to describe."""
    return {(None, name) for (name,) in connection.exec_driver_sql(UNMODELED_QUERY)}


def check_schemas(missing: Iterable[str]) -> None:
    """CommandError if a model has a schema."""
    if names := ", ".join(missing):
        raise CommandError(
            f"SQLite has no schemas: leave schema={names!r} out of the models, and"
            " begin the names of their tables with it."
        )


def render_named_type(*_: Any) -> str | None:
    """A type that has a name of its own: none here."""
    return None


def add_statements(
    context: MigrationContext, upgrade: OpContainer, downgrade: OpContainer
) -> None:
    """Indexes of expressions, outside of the copy that ALTER TABLE makes of a table:
    Alembic can neither make them there, nor keep those that are there.
    """
    metadata: sa.MetaData = context.opts["target_metadata"]
    connection: Any = context.connection
    changed = {op.table_name: op for op in upgrade.ops if hasattr(op, "table_name")}
    for name in dict.fromkeys([*metadata.tables, *changed]):
        table = metadata.tables.get(name)
        before, after = _existing(connection, name), _declared(context, table)
        is_new = isinstance(changed.get(name), CreateTableOp)
        for key in before.keys() - after.keys():
            if table is not None:
                upgrade.ops.insert(0, DropIndexOp.from_index(before[key]))
            downgrade.ops.append(CreateIndexOp.from_index(before[key]))
        for key in after.keys() - before.keys():
            upgrade.ops.append(CreateIndexOp.from_index(after[key]))
            if not is_new:
                downgrade.ops.insert(0, DropIndexOp.from_index(after[key]))
        for key in before.keys() & after.keys() if name in changed else ():
            for script in (upgrade, downgrade):
                create = CreateIndexOp.from_index(after[key])
                create.if_not_exists = True
                script.ops.append(create)


def _existing(connection: Any, table: str) -> dict[str, sa.Index]:
    """By their statements; all that is in the parentheses is one expression."""
    found = {}
    for name, sql in connection.exec_driver_sql(INDEX_QUERY, (table,)):
        expression: Any = sa.literal_column(sql[sql.index("(") + 1 : sql.rindex(")")])
        unique = sql.upper().startswith("CREATE UNIQUE")
        own = sa.Table(table, sa.MetaData())
        found[_bare(sql)] = sa.Index(name, expression, unique=unique, _table=own)
    return found


def _declared(context: MigrationContext, table: sa.Table | None) -> dict[str, sa.Index]:
    indexes = filter(_has_expression, table.indexes if table is not None else ())
    return {
        _bare(str(CreateIndex(index).compile(dialect=context.dialect))): index
        for index in indexes
    }


def _has_expression(index: sa.Index) -> bool:
    return not all(isinstance(each, sa.Column) for each in index.expressions)


def _bare(statement: str) -> str:
    return re.sub(r"[\s\"`\[\]]", "", statement).lower()
