"""Comparison of server defaults and types by what the server makes of them.

A server rewrites what it is given: 0 to '0', 'new' to 'new'::character varying, now()
to current_timestamp(). So the column of the model goes into a temporary table, and what
the server reports of that one is compared.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AlterColumnOp
from alembic.runtime.migration import MigrationContext
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable, DropTable

PLUGIN = Plugin("asyncdb.server_defaults")
SUBJECT = ("column", "server_default")
TABLE = "alembic_server_default"
# Neither a function nor the name of anything: one value at any time.
CONSTANT = re.compile(
    r"""(?: '(?:[^'\\]|''|\\.)*' | [-+\d.()\s] | \b(?:true|false|null)\b
    | ::[\w\s."]+ (?:\(\d+(?:,\s*\d+)?\))? (?:\[\])* )+""",
    re.IGNORECASE | re.VERBOSE,
)
# Names for the time at which the transaction began, without their parentheses.
CLOCKS = {"now", "current_timestamp", "transaction_timestamp", "datetime'now'"}


def type_differs(
    context: MigrationContext, inspected: sa.Column[Any], declared: sa.Column[Any]
) -> bool:
    """Ask the server only if Alembic sees a difference: FLOAT(24) is its REAL."""
    if not context.impl.compare_type(inspected, declared):
        return False
    try:
        with _temporary(context, declared, None) as table:
            expected = _reported(context, table)["type"]
    except DBAPIError:
        return True  # a type that is still to be created
    compiled = (
        each.compile(dialect=context.dialect) for each in (inspected.type, expected)
    )
    return len({*compiled}) > 1


def _compare(
    context: AutogenContext,
    change: AlterColumnOp,
    _schema: str | None,
    _table: str,
    _name: str,
    inspected: sa.Column[Any],
    declared: sa.Column[Any],
) -> PriorityDispatchResult:
    defaults = inspected.server_default, declared.server_default
    is_plain = all(isinstance(each, sa.DefaultClause | None) for each in defaults)
    if not any(defaults) or not is_plain or declared is _counter(declared.table):
        return PriorityDispatchResult.CONTINUE
    differs = context.opts["compare_own_default"](inspected, declared)
    if differs is None:
        differs = not _is_same(
            context.migration_context, declared, *map(_argument, defaults)
        )
    if differs:
        change.modify_server_default = declared.server_default
    return PriorityDispatchResult.STOP


def _counter(table: Any) -> sa.Column[Any] | None:
    """The column whose default is a sequence of its own."""
    column: sa.Column[Any] | None = table.autoincrement_column
    return column


def _argument(default: Any) -> Any:
    return default.arg if default else None


def _is_same(
    context: MigrationContext, column: sa.Column[Any], inspected: Any, declared: Any
) -> bool:
    stored: str | None = None if inspected is None else inspected.text
    try:
        with _temporary(context, column, declared) as table:
            expected: str | None = _reported(context, table).get("default")
    except DBAPIError:
        return False  # it names a type or a sequence that is still to be created
    if stored is None or expected is None or stored == expected:
        return stored == expected
    if {re.sub("[()]", "", each.lower()) for each in (stored, expected)} <= CLOCKS:
        return True
    if not (CONSTANT.fullmatch(stored) and CONSTANT.fullmatch(expected)):
        return False
    values: list[Any] = [sa.literal_column(each) for each in (stored, expected)]
    with _temporary(context, column, *values) as table:
        texts = (sa.cast(each, sa.String(1000)) for each in table.c)
        _connection(context).execute(table.insert())
        row = _connection(context).execute(sa.select(*texts)).one()
    return bool(row[0] == row[1])


@contextmanager
def _temporary(
    context: MigrationContext, like: sa.Column[Any], *defaults: Any
) -> Iterator[sa.Table]:
    """A table that has one column, of the type of `like`, for each default."""
    columns: list[sa.Column[Any]] = [
        sa.Column(f"c{number}", like.type, server_default=each, nullable=like.nullable)
        for number, each in enumerate(defaults)
    ]
    table = sa.Table(TABLE, sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    _connection(context).execute(CreateTable(table))
    try:
        yield table
    finally:
        _connection(context).execute(DropTable(table))


def _reported(context: MigrationContext, table: sa.Table) -> Any:
    """The single column, as autogenerate reads that of another table."""
    inspector = sa.inspect(_connection(context))
    (column,) = inspector.get_columns(table.name)
    context.impl.autogen_column_reflect(inspector, table, column)  # type: ignore[no-untyped-call]
    return column


def _connection(context: MigrationContext) -> Any:
    return context.connection


def _compare_identity(
    context: AutogenContext, change: AlterColumnOp, *columns: Any
) -> PriorityDispatchResult:
    declared: sa.Column[Any] = columns[-1]
    if context.dialect.supports_identity_columns or declared.identity is None:
        return PriorityDispatchResult.CONTINUE
    # What the server has instead: AUTO_INCREMENT must be said in any change.
    change.kw["autoincrement"] = declared is _counter(declared.table)
    return PriorityDispatchResult.STOP


PLUGIN.add_autogenerate_comparator(
    _compare_identity, *SUBJECT, priority=DispatchPriority.FIRST
)
PLUGIN.add_autogenerate_comparator(_compare, *SUBJECT)
