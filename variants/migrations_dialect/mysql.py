"""Migrations of MySQL and MariaDB: limits, a lock, what autogenerate does not know."""

import re
import warnings
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import sqlalchemy as sa
from alembic.ddl import mysql
from alembic.ddl.impl import ComparisonResult
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from .render import ExactExpressions

# An index may take an hour to build. A lock may not: every statement behind a waiting
# ALTER TABLE waits too.
MIGRATION_LIMITS = (
    "SET innodb_lock_wait_timeout=5, lock_wait_timeout=5"
    " /*M! , max_statement_time=3600, idle_transaction_timeout=3600 */"
    " /*!80000 , max_execution_time=3600000 */",
)
COPY = "alembic_index"


class MySQLImpl(ExactExpressions, mysql.MySQLImpl):  # type: ignore[misc]
    """In place of Alembic's, which reads neither expressions nor orders of an index."""

    __dialect__ = "mysql"
    connection: Any

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # MariaDB stores upper() as ucase(): each comparison would warn of a change.
        warnings.filterwarnings("ignore", "Computed default on")

    def autogen_column_reflect(
        self, inspector: sa.Inspector, table: sa.Table, column_info: Any
    ) -> None:
        """Add what SQLAlchemy does not read: MariaDB's DEFAULT with a function."""
        if column_info["default"] is None and self.connection:
            name = self.dialect.identifier_preparer.format_table(table)
            columns = self.connection.exec_driver_sql(f"SHOW COLUMNS FROM {name}")
            defaults = {column.Field: column.Default for column in columns}
            if default := defaults[column_info["name"]]:
                column_info["default"] = f"({default})"

    def compare_indexes(
        self, metadata_index: sa.Index, reflected_index: sa.Index
    ) -> ComparisonResult:
        if all(isinstance(each, sa.Column) for each in metadata_index.expressions):
            return super().compare_indexes(metadata_index, reflected_index)
        try:
            stored, declared = self._statements(metadata_index, reflected_index.table)
        except DBAPIError:
            return ComparisonResult.Different("the server does not accept the new one")
        if stored == declared:
            return ComparisonResult.Equal()
        return ComparisonResult.Different(f"{stored} to {declared}")

    def _statements(self, index: sa.Index, table: Any) -> tuple[str, str]:
        """What the server has of the index, and what it makes of that of the model."""
        columns: list[sa.Column[Any]] = [
            sa.Column(column.name, column.type, nullable=column.nullable)
            for column in table.columns
        ]
        copy = sa.Table(COPY, sa.MetaData(), *columns, prefixes=["TEMPORARY"])
        create = str(CreateIndex(index).compile(dialect=self.dialect))
        create = re.sub(r" ON .*? \(", f" ON {COPY} (", create, count=1)
        self.connection.execute(CreateTable(copy))
        try:
            self.connection.exec_driver_sql(create)
            return self._key(table, index), self._key(copy, index)
        finally:
            self.connection.execute(DropTable(copy))

    def _key(self, table: sa.Table, index: sa.Index) -> str:
        name = self.dialect.identifier_preparer.format_table(table)
        shown = self.connection.exec_driver_sql(f"SHOW CREATE TABLE {name}").one()[1]
        lines = (line.strip(" ,") for line in shown.splitlines())
        return next(str(line) for line in lines if f"KEY `{index.name}` (" in line)


def try_migration_lock(connection: Connection) -> AbstractContextManager[Any] | None:
    """Take the migration lock of this database; None while it is taken.

    The server releases it with the connection, so also when a migration is killed.
    """
    query = "SELECT GET_LOCK(CONCAT(LEFT(DATABASE(), 56), '.alembic'), 0)"
    return nullcontext() if connection.exec_driver_sql(query).scalar() else None


def unmodeled_tables(_: Connection) -> set[tuple[str | None, str]]:
    """Schema and name of the tables that are not for a model to describe: none here."""
    return set()


def check_schemas(_: Iterable[str]) -> None:
    """A schema is a database of the same server: the account must be able to create
    it, and each database of this service, those of the tests too, shares it.
    """


def add_statements(*_: Any) -> None:
    """What a revision needs beside its operations on tables: nothing here."""


def render_named_type(*_: Any) -> str | None:
    """A type that has a name of its own: none here."""
    return None
