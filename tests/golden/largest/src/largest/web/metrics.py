"""/metrics, for Prometheus, at a port of its own: the sum over all processes."""

import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from time import sleep

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import problem
from .routes import path_of
from .settings import WebSettings

PATH = "/metrics"
# Of a scrape, 10 ms apart, until the files of all processes can be read.
ATTEMPTS = 10

router = APIRouter(tags=["health"])


class MetricsSettings(WebSettings):
    # 0: none. The same as `port`: beside the other routes.
    metrics_port: int = Field(default=9808, ge=0, le=65535)

    @property
    def ports(self) -> set[int]:
        return (super().ports | {self.metrics_port}) - {0}


class AllProcesses(Collector):
    """The sum over the processes that share PROMETHEUS_MULTIPROC_DIR."""

    def collect(self) -> Iterable[Metric]:
        collector: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        for _ in range(ATTEMPTS):
            with suppress(struct.error):
                return [*collector.collect()]
            sleep(0.01)  # a file that was just created is empty for a moment
        return [*collector.collect()]


class MetricsPort:
    """Answers nothing but /metrics at METRICS_PORT.

    The server has opened that port, once for all processes.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] != "lifespan" and path_of(scope) != PATH:
            # None without lifespan, as in a test: no server has opened the port.
            settings: MetricsSettings | None = scope.get("state", {}).get("settings")
            if settings and settings.port != settings.metrics_port == _port(scope):
                app = problem(404, "Not Found")
        await app(scope, receive, send)


@router.get(PATH)
def metrics(request: Request) -> Response:
    if _port(request.scope) != request.state.settings.metrics_port:
        raise HTTPException(404)
    is_shared = "PROMETHEUS_MULTIPROC_DIR" in os.environ
    collector: Collector = AllProcesses() if is_shared else REGISTRY
    return Response(generate_latest(collector), media_type=CONTENT_TYPE_LATEST)


def _port(scope: Scope) -> int | None:
    """That of the socket: no header can change it."""
    _, port = scope.get("server") or (None, None)
    return port
