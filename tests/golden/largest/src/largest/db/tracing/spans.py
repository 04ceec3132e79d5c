"""Spans of the database: names and attributes of OpenTelemetry's conventions."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    get_current_span,
    get_tracer,
    set_span_in_context,
)

TRACER = get_tracer(__name__.partition(".")[0])
POOL = "db.client.connection.pool.name"
# Of an INSERT of many rows most of the text is placeholders.
MAX_SQL_CHARACTERS = 2000
_TABLE = re.compile(r'\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?["`\[]?(\w+)', re.IGNORECASE)

Attributes = dict[str, str | int | bool]


def is_traced() -> bool:
    """Whether what runs now belongs to a trace that is recorded."""
    return get_current_span().is_recording()


@contextmanager
def span(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Context | None = None,
) -> Iterator[Span]:
    """A span that ends with the block, and has the type of its error."""
    new = TRACER.start_span(name, parent, kind, attributes)
    try:
        yield new
    except BaseException as error:
        fail(new, error)
        raise
    finally:
        new.end()


@contextmanager
def current_span(
    name: str, attributes: Attributes | None = None, *, kind: SpanKind
) -> Iterator[Span]:
    """As `span()`, and what runs in the block belongs to it."""
    with span(name, attributes, kind=kind) as new:
        token = attach(set_span_in_context(new))
        try:
            yield new
        finally:
            detach(token)


def fail(span: Span, error: BaseException) -> None:
    """The message of an error stays out: it may contain values of the data."""
    span.set_status(StatusCode.ERROR)
    span.set_attribute("error.type", type(error).__name__)


# Most texts are those of kept statements.
@lru_cache(maxsize=500)
def describe(sql: str) -> tuple[str, Attributes]:
    """Name and attributes of a statement: its text has placeholders for values."""
    words = sql.split(maxsplit=1)
    operation = words[0].strip("(;").upper() if words else ""
    table = _TABLE.search(sql)
    name = f"{operation} {table[1]}" if table else operation
    attributes: Attributes = {
        "db.operation.name": operation,
        "db.query.summary": name,
        "db.query.text": sql[:MAX_SQL_CHARACTERS],
    }
    return name, attributes
