"""Load shedding: a request that would not get a connection is rejected before its body
is read, and before its dependencies run.
"""

import asyncio
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from ..db.engine.pool import retry_after
from ..db.errors import FaultKind
from .errors import PROBLEMS, problem
from .logs import request_id
from .routes import EXCHANGE, FOUND, RouteTable

# A client that comes back at once, whatever Retry-After says, would take the CPU of the
# requests that have a connection: its answer is held for so long, of so many clients.
HOLD_SECONDS = (0.5, 1.0)
MAX_HELD = 1000


class Overload:
    """Answers 503 for a route with a session if each pool that it may use is full.

    The pool counts it, and logs one line a second.
    """

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self.app = app
        self.routes = routes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            route, path_params = scope[FOUND] = self.routes.find(scope)
            if route and path_params is not None:
                engines = scope["state"]["database"].engines_for(route.calls)
                if wait := _excess_wait(engines):
                    if exchange := scope.get(EXCHANGE):
                        exchange.route, exchange.has_line = route, False
                        exchange.problem = FaultKind.BUSY
                    return await self._reject(send, wait)
        await self.app(scope, receive, send)

    async def _reject(self, send: Send, wait: float) -> None:
        if self._held < MAX_HELD:
            self._held += 1
            try:
                await asyncio.sleep(random.uniform(*HOLD_SECONDS))  # noqa: S311
            finally:
                self._held -= 1
        status, headers, before, after = _busy("request-id")
        body = b"%b%b%b" % (before, (request_id.get() or "").encode(), after)
        headers = [
            *headers,
            (b"content-length", b"%d" % len(body)),
            (b"retry-after", b"%d" % retry_after(wait)),
        ]
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        await send({"type": "http.response.body", "body": body})


def _excess_wait(engines: Sequence[AsyncEngine]) -> float:
    """The predicted wait of a session that each of the pools would reject, else 0."""
    wait = 0.0
    for engine in engines:
        pool: Any = engine.sync_engine.pool
        if not (wait := pool.excess_wait()):
            return 0
    if wait:
        pool.count_rejected()
    return wait


@cache
def _busy(marker: str) -> tuple[int, list[tuple[bytes, bytes]], bytes, bytes]:
    """Status, headers and body of the problem document, without the request id."""
    status, detail = PROBLEMS[FaultKind.BUSY]
    token = request_id.set(marker)
    answer = problem(status, detail, kind=FaultKind.BUSY)
    request_id.reset(token)
    headers = [each for each in answer.raw_headers if each[0] != b"content-length"]
    before, _, after = bytes(answer.body).partition(marker.encode())
    return status, headers, before, after
