"""Middleware of every request: its id, its line in the log, a limit for its body."""

import logging
import random
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Any, Protocol

from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitResponder
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .logs import log_request
from .logs import request_id as request_id
from .routes import EXCHANGE, RouteTable, TableRoute
from .settings import WebSettings

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# Most of the lines of a service at rest: at DEBUG, unless they fail.
PROBES = {"/livez", "/readyz", "/metrics"}

logger = logging.getLogger(__name__)


class Exchange(RequestBodyLimitResponder):
    """A request and its answer, as the log and the metrics report them.

    A body above the limit is a 413; a route raises the limit by `max_body_size=`.
    """

    def __init__(self, app: ASGIApp, max_body_size: int, request_id: str) -> None:
        super().__init__(app, max_body_size)
        self.route: TableRoute | None = None
        self.status = 500
        self.sent = 0  # bytes of the body
        self.has_line = True  # in the log
        self.problem = ""  # the type of an error of the database
        self.cut = False  # by an error after its start
        self._header = (b"x-request-id", request_id.encode())
        self._began = perf_counter()
        self._ended = 0.0

    @property
    def path(self) -> str:
        """The template of the route."""
        return self.route.path if self.route else "unmatched"

    @property
    def seconds(self) -> float:
        """Until the last byte was sent: a background task comes after that."""
        return (self._ended or perf_counter()) - self._began

    def is_body_too_long(self, limit: int | None) -> bool:
        """By its header, before an answer begins that would be cut when the body is
        read; `limit` is that of a route.
        """
        limit = self.max_body_size if limit is None else limit
        return (self.content_length or 0) > limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except BaseException:
            self.cut = self.response_started and not self._ended
            raise
        if self.response_started and not self._ended:
            self.status = 499  # the client has left

    async def send_with_limit(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.response_started = True
            self.status = message["status"]
            headers = message.get("headers", ())
            others = [each for each in headers if each[0] != b"x-request-id"]
            message["headers"] = [*others, self._header]
        else:
            self.sent += len(message.get("body", b""))
        # Not the base class's: its answer to a long body would be plain text.
        await self.send(message)
        if not message.get("more_body", "status" in message):
            self._ended = perf_counter()

    def log(self) -> None:
        fine = self.status < 400
        level = logging.DEBUG if fine and self.path in PROBES else logging.INFO
        if not self.has_line or not logger.isEnabledFor(level):
            return
        method, client = self.scope["method"], self.scope.get("client")
        fields: dict[str, Any] = {
            "method": method,
            "route": self.path,
            "status": self.status,
            "duration_ms": round(self.seconds * 1000, 1),
            "client": client[0] if client else None,
        }
        if self.cut:
            fields["cut"] = True
        message = f"{method} {self.scope['path']} {self.status}"
        log_request(logger, level, message, fields)


class Observer(Protocol):
    """Called at the start and at the end of each request."""

    def started(self) -> None: ...
    def ended(self, exchange: Exchange) -> None: ...


class RequestMiddleware:
    """Takes X-Request-ID from the caller or makes one, and answers with it."""

    def __init__(
        self,
        app: ASGIApp,
        max_body_size: int,
        routes: RouteTable,
        observers: Sequence[Observer],
    ) -> None:
        self.app = app
        self.max_body_size = max_body_size
        self.routes = routes
        self.observers = observers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        identity = ""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                identity = value.decode("latin-1")
        if not REQUEST_ID_PATTERN.fullmatch(identity):
            identity = f"{random.getrandbits(128):032x}"
        # Not reset: the error handler outside of this middleware uses it.
        request_id.set(identity)
        if scope["type"] == "websocket":
            return await self.app(scope, receive, send)
        exchange = Exchange(self.app, self.max_body_size, identity)
        scope[EXCHANGE] = exchange
        for observer in self.observers:
            observer.started()
        try:
            await exchange(scope, receive, send)
        finally:
            if not exchange.route:  # answered by a middleware
                exchange.route = self.routes.find(scope).route
            exchange.log()
            for observer in self.observers:
                observer.ended(exchange)


def default_middleware(
    settings: WebSettings, routes: RouteTable, observers: Sequence[Observer]
) -> list[Middleware]:
    limit = settings.max_body_bytes
    return [Middleware(RequestMiddleware, limit, routes, observers)]
