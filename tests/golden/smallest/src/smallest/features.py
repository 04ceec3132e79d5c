"""The parts of this service, generated from its answers by `make update`."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from fastapi import APIRouter
from fastapi.telemetry import TelemetryConfig

from .db.features import DatabaseSettings
from .web.errors import problem as problem
from .web.errors.handlers import EXCEPTION_HANDLERS as EXCEPTION_HANDLERS
from .web.metrics import MetricsPort, MetricsSettings
from .web.metrics import router as metrics
from .web.middleware import Observer
from .web.overload import Overload
from .web.request_metrics import RequestMetrics
from .web.settings import WebSettings


class ServiceSettings(MetricsSettings, WebSettings, DatabaseSettings):
    """All variables of the template; yours are in settings.py."""


PROJECT = "smallest"
# Around that of api.py, and inside of it.
OUTER_MIDDLEWARE: list[Any] = [MetricsPort]
INNER_MIDDLEWARE: list[Any] = [Overload]
OBSERVERS: list[Observer] = [RequestMetrics()]
ROUTERS: list[APIRouter] = [metrics]
# Called at the start of each process, with its settings.
CONFIGURE: list[Callable[[ServiceSettings], None]] = []
# Without the SDK there is no provider: FastAPI would ask for one at each request.
TELEMETRY: TelemetryConfig = (
    {}
    if find_spec("opentelemetry.sdk")
    else {"tracing": False, "metrics": False, "logs": False}
)
