"""The edge: hosts and origins that are answered, headers that protect a browser."""

from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..db.doctor.report import CheckResult
from .errors import problem
from .middleware import PROBES
from .settings import WebSettings

EXPOSED = ("Retry-After", "X-Request-ID")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
]
# A browser that has been here over TLS comes over TLS only, for a year.
TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")


class Edge:
    """Answers 400 to a Host that is not in ALLOWED_HOSTS; adds headers to answers."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = frozenset(each for each in hosts if not each.startswith("*."))
        self.suffixes = tuple(each[1:] for each in hosts if each.startswith("*."))
        self.any = not (self.hosts or self.suffixes) or "*" in self.hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        # The platform asks for the probes by an address of the instance, not by a name.
        is_allowed = self.any or scope["path"] in PROBES or self._is_allowed(scope)
        if scope["type"] == "websocket":
            if is_allowed:
                return await self.app(scope, receive, send)
            return await send({"type": "websocket.close", "code": 1008})
        is_encrypted = scope["scheme"] == "https"
        added = [*SECURITY_HEADERS, TLS_ONLY] if is_encrypted else SECURITY_HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                # A route may have its own.
                names = {name for name, _ in headers}
                new = [each for each in added if each[0] not in names]
                message = {**message, "headers": [*headers, *new]}
            await send(message)

        app = (
            self.app if is_allowed else problem(400, "This is no host of this service.")
        )
        await app(scope, receive, send_with_headers)

    def _is_allowed(self, scope: Scope) -> bool:
        named = [value for name, value in scope["headers"] if name == b"host"]
        host = named[0].decode("latin-1").lower() if len(named) == 1 else ""
        name, _, port = (
            host.rpartition(":") if not host.endswith("]") else (host, "", "")
        )
        name = name if name and port.isdecimal() else host
        return name in self.hosts or name.endswith(self.suffixes)


def edge_middleware(
    settings: WebSettings, others: Iterable[object]
) -> list[Middleware]:
    """`others` are middleware classes, of which one may name headers to expose."""
    exposed = [name for each in others for name in getattr(each, "exposed", ())]
    middleware = [Middleware(Edge, hosts=settings.allowed_hosts)]
    if settings.cors_origins:
        middleware += [
            Middleware(
                CORSMiddleware,
                allow_origins=settings.cors_origins,
                allow_credentials=settings.cors_credentials,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=[*EXPOSED, *exposed],
            )
        ]
    return middleware


async def check_edge(_: AsyncConnection, settings: WebSettings) -> CheckResult:
    """Check of the doctor: what a client from outside gets."""
    open_to = [
        "any Host is answered: set ALLOWED_HOSTS" if not settings.allowed_hosts else "",
        "/docs and /openapi.json are served: unset DOCS" if settings.docs else "",
    ]
    if any(open_to):
        return "warn", "; ".join(filter(None, open_to))
    proxies = ", ".join(settings.forwarded_allow_ips)
    origins = ", ".join(settings.cors_origins) or "none"
    hosts = ", ".join(settings.allowed_hosts)
    return "ok", f"hosts {hosts}; proxies {proxies}; other origins {origins}"
