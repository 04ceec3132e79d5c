"""Traces requests, and exports spans for as long as the service runs."""

import os
from time import time_ns

from opentelemetry.context import Context, attach
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..db.tracing.spans import TRACER, fail
from ..web.middleware import PROBES, Exchange
from ..web.request_metrics import METHODS
from ..web.routes import EXCHANGE, path_of
from .context import from_headers
from .provider import flush, set_up

# Set in a process that has taken the place of one that has ended.
PREDECESSOR = "PREDECESSOR_PID"


class TraceRequests:
    """A span for each request but probes, below the span of its caller; and one for the
    start of the process.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            set_up()
            try:
                await self.app(scope, receive, _trace_start(send))
            finally:
                flush()
        elif scope["type"] != "http" or path_of(scope) in PROBES:
            await self.app(scope, receive, send)
        else:
            await self._trace(scope, receive, send)

    async def _trace(self, scope: Scope, receive: Receive, send: Send) -> None:
        parent, began = from_headers(scope["headers"]), time_ns()
        new = TRACER.start_span(
            scope["method"], parent, SpanKind.SERVER, start_time=began
        )
        # Not detached: the line of the log is written outside of this middleware.
        attach(set_span_in_context(new, parent))
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            fail(new, error)
            raise
        finally:
            exchange: Exchange = scope[EXCHANGE]
            if new.is_recording():
                _describe(new, scope, exchange)
            new.end(began + int(exchange.seconds * 1e9))


def _trace_start(send: Send) -> Send:
    """A span until the process is ready, which names its predecessor: a process that
    was killed could not export what it was doing.
    """
    predecessor = os.environ.get(PREDECESSOR)
    attributes = {"process.predecessor.pid": int(predecessor)} if predecessor else {}
    start = TRACER.start_span("start", Context(), attributes=attributes)

    async def send_and_end(message: Message) -> None:
        if message["type"].startswith("lifespan.startup."):
            if message["type"].endswith("failed"):
                start.set_status(StatusCode.ERROR)
            start.end()
        await send(message)

    return send_and_end


def _describe(span: Span, scope: Scope, exchange: Exchange) -> None:
    method, client = scope["method"], scope.get("client")
    is_known = method in METHODS  # a client can send any
    if not is_known:
        span.set_attribute("http.request.method_original", method)
    span.set_attribute("http.request.method", method if is_known else "_OTHER")
    span.set_attribute("http.response.status_code", exchange.status)
    span.set_attribute("url.path", scope["path"])
    span.set_attribute("url.scheme", scope["scheme"])
    if client:
        span.set_attribute("client.address", client[0])
    name = method if is_known else "HTTP"
    span.update_name(name)
    if exchange.route:
        span.update_name(f"{name} {exchange.path}")
        span.set_attribute("http.route", exchange.path)
    if exchange.status >= 500:
        span.set_status(StatusCode.ERROR)
        span.set_attribute("error.type", str(exchange.status))
