"""Order of operations in a revision: tables before the keys that lead to them."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic.operations.ops import (
    CreateForeignKeyOp,
    CreateTableOp,
    DropIndexOp,
    DropTableOp,
    ModifyTableOps,
)
from alembic.runtime.migration import MigrationContext


def set_order(context: MigrationContext, upgrade: Any, downgrade: Any) -> None:
    """Foreign keys in a circle are created after its tables, dropped before them."""
    upgrade.ops = _with_drops_last(upgrade.ops)
    upgrade.reverse_into(downgrade)
    added = _deferred_keys(context, upgrade.ops)
    dropped = _deferred_keys(context, downgrade.ops)
    upgrade.ops = [*_backwards(dropped), *_without_indexes(upgrade.ops), *added]
    downgrade.ops = [*_backwards(added), *_without_indexes(downgrade.ops), *dropped]


def _with_drops_last(operations: list[Any]) -> list[Any]:
    """A server does not drop a table to which a key leads.

    Alembic drops tables in the order of a set, and before the keys of those that stay.
    """
    drops = sorted(
        (op for op in operations if isinstance(op, DropTableOp)), key=_name_of
    )
    dropped = {*map(_name_of, drops)}
    rest, indexes = [], []
    for op in operations:
        if isinstance(op, ModifyTableOps) and _name_of(op) in dropped:
            indexes.append(op)
        elif not isinstance(op, DropTableOp):
            rest.append(op)
    return [*rest, *indexes, *_children_first(drops)]


def _children_first(drops: list[DropTableOp]) -> Iterable[DropTableOp]:
    parents = {_name_of(op): _parents(op) for op in drops}
    while drops:
        left = {parent for op in drops for parent in parents[_name_of(op)]}
        free = (op for op in drops if _name_of(op) not in left)
        following = next(free, drops[0])  # in a circle any
        drops.remove(following)
        yield following


def _parents(op: DropTableOp) -> set[tuple[str, str]]:
    keys = op.to_table().foreign_key_constraints
    return {
        (key.referred_table.schema or "", key.referred_table.name) for key in keys
    } - {_name_of(op)}


def _name_of(op: Any) -> tuple[str, str]:
    return op.schema or "", op.table_name


def _backwards(keys: list[CreateForeignKeyOp]) -> list[Any]:
    return [key.reverse() for key in reversed(keys)]


def _without_indexes(operations: list[Any]) -> list[Any]:
    """DROP TABLE drops them too; the index of a foreign key may be refused before."""
    dropped = {_name_of(op) for op in operations if isinstance(op, DropTableOp)}
    for op in operations:
        if isinstance(op, ModifyTableOps) and _name_of(op) in dropped:
            op.ops = [each for each in op.ops if not isinstance(each, DropIndexOp)]
    return [op for op in operations if not isinstance(op, ModifyTableOps) or op.ops]


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
