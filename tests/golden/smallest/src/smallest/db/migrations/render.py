"""How a revision names the type of a column, and writes an expression."""

import re
from importlib import import_module
from typing import Any, Literal

import sqlalchemy as sa
from alembic.autogenerate import render
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.types import TypeDecorator, TypeEngine

# What text() takes for a parameter, as in '{"a":1}'.
PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")


def render_type(
    type_: TypeEngine[Any], context: AutogenContext
) -> str | Literal[False]:
    """A type of the service by the type of its column, since a revision must run after
    the class has changed; a type of a library with its import. False: as Alembic does.
    """
    module = type(type_).__module__
    if module.startswith("sqlalchemy.") or type_._variant_mapping:
        return False  # Alembic asks for each variant by itself
    if isinstance(type_, TypeDecorator):
        impl = _public(type_.load_dialect_impl(context.dialect), context)
        return str(render._repr_type(impl, context))
    context.imports.add(f"import {module}")
    return False


def _public(type_: TypeEngine[Any], context: AutogenContext) -> TypeEngine[Any]:
    """The type by a class that can be imported: not AsyncpgDateTime but DateTime."""
    dialect = import_module(f"sqlalchemy.dialects.{context.dialect.name}")
    for each in type(type_).__mro__:
        if each in (getattr(sa, each.__name__, 0), getattr(dialect, each.__name__, 0)):
            return type_ if each is type(type_) else type_.adapt(each)
    return type_


class ExactExpressions:
    """Mixin of Alembic's implementation of a dialect: the text of an expression, which
    text() in a revision reads once more.
    """

    dialect: Any

    def render_ddl_sql_expr(self, expr: Any, **options: Any) -> str:
        if isinstance(expr, sa.TextClause):
            expr = sa.text(PARAMETER.sub(r"\:", expr.text))
        parent: Any = super()
        rendered: str = parent.render_ddl_sql_expr(expr, **options)
        if self.dialect.identifier_preparer._double_percents:
            rendered = rendered.replace("%%", "%")
        return rendered if options.get("is_index") else PARAMETER.sub(r"\:", rendered)
