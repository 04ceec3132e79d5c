"""Context of a trace: read from the headers of a request, written to the log."""

from collections.abc import Iterable

from opentelemetry.context import Context
from opentelemetry.trace import INVALID_TRACE_ID, format_trace_id, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..web.logs import CONTEXT

# The headers of W3C Trace Context.
W3C = TraceContextTextMapPropagator()
FIELDS = {name.encode(): name for name in W3C.fields}


def from_headers(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    carrier = {
        FIELDS[name]: value.decode("latin-1")
        for name, value in headers
        if name in FIELDS
    }
    return W3C.extract(carrier, Context())


def trace_id() -> str | None:
    number = get_current_span().get_span_context().trace_id
    return None if number == INVALID_TRACE_ID else format_trace_id(number)


def log_trace_id(_: object) -> None:
    CONTEXT["trace_id"] = trace_id
