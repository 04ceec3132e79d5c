"""Traces an engine: a span for each checked out connection, and below it for the wait
in the queue, the connect, each statement and COMMIT.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import PoolProxiedConnection

from ..engine.driver import Dialect
from ..engine.pool import FairPool
from .spans import POOL, TRACER, Attributes, describe, fail, is_traced, span

# In the record of a connection, while a trace is recorded that has checked it out.
SPAN = "span"


class TracedDialect(Dialect):
    supports_statement_cache = True
    attributes: Attributes

    def connect(self, *args: Any, **parameters: Any) -> Any:
        if not is_traced():
            return super().connect(*args, **parameters)
        with span("connect", self.attributes, kind=SpanKind.CLIENT):
            return super().connect(*args, **parameters)

    def do_execute(self, cursor: Any, *args: Any) -> None:
        self._trace(super().do_execute, cursor, *args)

    def do_executemany(self, cursor: Any, *args: Any) -> None:
        self._trace(super().do_executemany, cursor, *args)

    def do_execute_no_params(self, cursor: Any, *args: Any) -> None:
        self._trace(super().do_execute_no_params, cursor, *args)

    def do_commit(self, dbapi_connection: Any) -> None:
        commit: Callable[[Any], None] = super().do_commit
        if not (parent := _span_of(dbapi_connection)):
            return commit(dbapi_connection)
        context, kind = set_span_in_context(parent), SpanKind.CLIENT
        with span("COMMIT", self.attributes, kind=kind, parent=context):
            commit(dbapi_connection)

    def _trace(self, execute: Callable[..., None], cursor: Any, *args: Any) -> None:
        """`args` begin with the statement, and end with its context."""
        if not (parent := _span_of(args[-1].root_connection.connection)):
            return execute(cursor, *args)
        with self._statement(args[0], parent):
            execute(cursor, *args)

    @contextmanager
    def _statement(self, sql: str, parent: Span) -> Iterator[None]:
        name, attributes = describe(sql)
        attributes, context = self.attributes | attributes, set_span_in_context(parent)
        with span(name, attributes, kind=SpanKind.CLIENT, parent=context) as new:
            try:
                yield
            except self.loaded_dbapi.Error as error:
                # SQLSTATE, or the number before the message. A driver's own errors have
                # neither, and values in the message.
                first = next(iter(error.args), None)
                number = first if isinstance(first, int) else None
                if code := getattr(error, "sqlstate", None) or number:
                    new.set_attribute("db.response.status_code", str(code))
                raise


class TracedPool(FairPool):
    """The span of a connection lasts until it is returned: what is between two of its
    statements is time for which the service keeps it idle.
    """

    @property
    def _attributes(self) -> Attributes:
        return cast("TracedDialect", self._dialect).attributes

    def connect(self) -> PoolProxiedConnection:
        if not is_traced():
            return super().connect()
        new = TRACER.start_span("connection", attributes=self._attributes)
        token = attach(set_span_in_context(new))
        try:
            connection = super().connect()
        except BaseException as error:
            fail(new, error)
            new.end()
            raise
        finally:
            detach(token)
        connection.record_info[SPAN] = new  # type: ignore[index]
        return connection

    def _queue(self) -> None:
        if not is_traced():
            return super()._queue()
        with span("queue", {POOL: self._attributes[POOL]}):
            super()._queue()

    def _do_return_conn(self, record: Any) -> None:
        if new := record.record_info.pop(SPAN, None):
            new.end()
        super()._do_return_conn(record)


def trace_engine(engine: AsyncEngine, *_: object, pool: str = "primary") -> None:
    """Trace an engine with a pool: that of a migration has none."""
    sync_engine, url = engine.sync_engine, engine.url
    if not isinstance(sync_engine.pool, FairPool):
        return
    named = {"db.namespace": url.database, "server.address": url.host}
    attributes: dict[str, Any] = {key: value for key, value in named.items() if value}
    if url.port:
        attributes["server.port"] = url.port
    attributes |= {"db.system.name": sync_engine.dialect.name, POOL: pool}
    # By their class: SQLAlchemy replaces a pool by another one of its class.
    sync_engine.pool.__class__ = TracedPool
    dialect: Any = sync_engine.dialect
    dialect.__class__, dialect.attributes = TracedDialect, attributes


def _span_of(connection: Any) -> Span | None:
    found: Span | None = (connection.record_info or {}).get(SPAN)
    return found
