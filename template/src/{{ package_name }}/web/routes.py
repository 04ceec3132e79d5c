"""Table of all routes, read at start: the route of a request is found in one step.

FastAPI asks one included router after the other, and the one that has the route again.
"""

import re
from typing import Any, NamedTuple

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.params import Form
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

# In the scope: what was found for this request, and its entry in the log.
FOUND, EXCHANGE = f"{__name__}.found", f"{__name__}.exchange"


class TableRoute:
    """A route of any router: `path` begins with the prefixes of all its routers.

    `calls` are its dependencies. `app` is its handler, or None if FastAPI has to find
    it: of a mounted application, of a route class of your own.
    """

    def __init__(self, context: RouteContext) -> None:
        original = context.original_route
        self.original: Any = original
        self.effective: Any = getattr(context, "_effective_route", original)
        self.path = str(context.path_format or context.path or "/")
        self.methods = context.methods or ()
        self.calls = frozenset[Any]()
        self.app: ASGIApp | None = None
        self.max_body_size: int | None = getattr(self.effective, "max_body_size", None)
        # None: only its own matches() can tell.
        self.regex: Any = None
        known = {APIRoute.matches, Route.matches, Mount.matches}
        if getattr(type(original), "matches", None) in known:
            self.regex = context.path_regex
            self.convertors = context.param_convertors
        if isinstance(original, APIRoute):
            self.calls = _calls(context.dependant)
            body = context.body_field
            # A form has the limits of each router on the way.
            is_form = body is not None and isinstance(body.field_info, Form)
            if self.regex and type(original).handle is APIRoute.handle and not is_form:
                self.app = context.app

    def found(self, match: re.Match[str]) -> "Found":
        values: dict[str, Any] = match.groupdict()
        try:
            for name, value in values.items():
                values[name] = self.convertors[name].convert(value)
        except ValueError:
            return UNREADABLE
        return Found(self, values)


class Found(NamedTuple):
    """No route: 404, or another application. No `path_params`: the method is wrong."""

    route: TableRoute | None
    path_params: dict[str, Any] | None


NOT_FOUND = Found(None, None)
# A parameter that its convertor rejects, as `int` does from 4301 digits on: a 404. The
# router would raise the error.
UNREADABLE = Found(None, {})


class RouteTable:
    """Stands before the router of an application, and calls the handler itself.

    What it does not find goes to the router: websockets, redirects, 404 and 405.
    """

    def __init__(self) -> None:
        self._router: Any = None  # of the application
        self._route: Any = None  # the router's own way to a handler
        self._routes: list[TableRoute] = []
        # Without and with parameters, by method.
        self._fixed: dict[tuple[str, str], Found] = {}
        self._others: dict[str, list[TableRoute]] = {}

    def read(self, app: FastAPI) -> None:
        """To be called when all routes are there: the router finds a later one."""
        self._routes = [
            TableRoute(context)
            for context in iter_route_contexts(app.routes)
            if not isinstance(context.original_route, WebSocketRoute)
        ]
        self._fixed.clear()
        for method in {method for route in self._routes for method in route.methods}:
            self._read(method)
        if self._router is None:
            self._router, self._route = app.router, app.router.middleware_stack
            app.router.middleware_stack = self

    def _read(self, method: str) -> None:
        others = self._others[method] = []
        for route in self._routes:
            if route.methods and method not in route.methods:
                continue
            is_first = all(
                each.regex and not each.regex.match(route.path) for each in others
            )
            if route.regex and route.app and not route.convertors and is_first:
                self._fixed.setdefault((method, route.path), Found(route, {}))
            else:
                others.append(route)

    def find(self, scope: Scope) -> Found:
        method, path = scope["method"], path_of(scope)
        if found := self._fixed.get((method, path)):
            return found
        for route in self._others.get(method, ()):
            if not route.regex:
                if isinstance(route.original, APIRoute):
                    break  # its matches() is yours: FastAPI has to call it
                if route.effective.matches(scope)[0] is Match.FULL:
                    return Found(route, {})
            elif match := route.regex.match(path):
                return route.found(match)
        for route in self._routes:
            if route.regex and (match := route.regex.match(path)):
                is_readable = route.found(match) is not UNREADABLE
                return Found(route, None) if is_readable else UNREADABLE
        return NOT_FOUND

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found = scope.pop(FOUND, None) or self.find(scope)
            if found is UNREADABLE:
                raise HTTPException(404)
            route, path_params = found
            if exchange := scope.get(EXCHANGE):
                exchange.route = route
            if route and route.app and path_params is not None:
                if exchange and exchange.is_body_too_long(route.max_body_size):
                    raise HTTPException(413, "Content Too Large")
                # FastAPI's telemetry observes its own way to the handler.
                if not scope.get("fastapi.telemetry"):
                    self._select(scope, route, path_params)
                    await route.app(scope, receive, send)
                    return
        await self._route(scope, receive, send)

    def _select(
        self, scope: Scope, route: TableRoute, path_params: dict[str, Any]
    ) -> None:
        """Set in the scope what the router would set."""
        scope.setdefault("router", self._router)
        scope["route"], scope["endpoint"] = route.original, route.effective.endpoint
        scope["path_params"] = {**scope.get("path_params", {}), **path_params}
        if route.effective is not route.original:
            context = {"effective_route_context": route.effective}
            scope["fastapi"] = scope.get("fastapi", {}) | context


def path_of(scope: Scope) -> str:
    """The path below `root_path`, where a server or a mount has the application."""
    below: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return below if below[:1] in ("", "/") else scope["path"]


def _calls(dependant: Dependant) -> frozenset[Any]:
    inner = [_calls(each) for each in dependant.dependencies]
    return frozenset({dependant.call}).union(*inner)
