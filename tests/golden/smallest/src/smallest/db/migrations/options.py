"""Options of autogenerate: what it compares, and how it writes a revision."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.util import CommandError
from sqlalchemy import MetaData

from .compare import type_differs
from .dialect import render_named_type, unmodeled_tables
from .render import render_type
from .revision import complete_revision

LISTS = ("IGNORED_TABLES", "SCHEMAS")


def autogenerate_options(metadata: MetaData, path: Path | None) -> dict[str, Any]:
    """Arguments of context.configure(); `path` is migrations/options.py.

    CommandError if a list of that file is not a list.
    """
    own = _load(path)
    tables = _Tables(metadata, own.IGNORED_TABLES, own.SCHEMAS)

    def compare_type(
        migration: Any, inspected: Any, declared: Any, *_: Any
    ) -> bool | None:
        differs: bool | None = own.compare_type(inspected, declared)
        return (
            type_differs(migration, inspected, declared) if differs is None else differs
        )

    def render_item(
        kind: str, item: Any, autogenerate: AutogenContext
    ) -> str | Literal[False]:
        rendered: str | Literal[False] = own.render_item(kind, item, autogenerate)
        if rendered is False and kind == "type":
            named = render_named_type(item, autogenerate)
            return named or render_type(item, autogenerate)
        return rendered

    return {
        "autogenerate_plugins": ["alembic.autogenerate.*", "asyncdb.*"],
        "compare_own_default": own.compare_server_default,
        "compare_server_default": True,
        "compare_type": compare_type,
        "include_name": tables.include_name,
        "include_object": tables.include_object,
        "include_schemas": True,
        "process_revision_directives": complete_revision,
        "render_item": render_item,
    }


def _load(path: Path | None) -> SimpleNamespace:
    """The owner's options; what is not in the file is left to the template."""
    options: dict[str, Any] = {
        "IGNORED_TABLES": (),
        "SCHEMAS": (),
        "compare_type": lambda *_: None,
        "compare_server_default": lambda *_: None,
        "render_item": lambda *_: False,
    }
    if path and path.exists():
        options |= run_path(str(path))
    for name in LISTS:
        if not isinstance(options[name], list | tuple | set):
            raise CommandError(
                f"migrations/options.py: {name} must be a list of names, as in"
                ' ["audit"].'
            )
    return SimpleNamespace(**options)


class _Tables:
    """Chooses the tables that are compared: what is not chosen is never dropped."""

    def __init__(
        self, metadata: MetaData, ignored: Iterable[str], schemas: Iterable[str]
    ) -> None:
        self._ignored = ignored
        self._modeled = {(t.schema, t.name) for t in metadata.tables.values()}
        self._schemas = {None, *schemas, *(schema for schema, _ in self._modeled)}

    @cached_property
    def _unmodeled(self) -> set[tuple[str | None, str]]:
        return unmodeled_tables(context.get_bind())

    def include_name(self, name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in self._schemas
        if kind != "table" or name is None:
            return True
        table = (parents["schema_name"], name)
        if table not in self._modeled and table in self._unmodeled:
            return False
        return not self._is_ignored(*table)

    def include_object(self, item: Any, name: str | None, kind: str, *_: Any) -> bool:
        return kind != "table" or not self._is_ignored(item.schema, name or "")

    def _is_ignored(self, schema: str | None, table: str) -> bool:
        name = f"{schema}.{table}" if schema else table
        return any(fnmatchcase(name, pattern) for pattern in self._ignored)
