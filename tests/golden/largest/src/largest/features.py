"""The parts of this service, generated from its answers by `make update`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter
from fastapi.telemetry import TelemetryConfig

from .db.features import DatabaseSettings
from .db.replicas.watermark import READ_AFTER
from .tracing.context import log_trace_id
from .tracing.http import TraceRequests
from .tracing.tasks import TRACE_CONTEXT, trace_tasks
from .web.errors import problem as problem
from .web.errors.handlers import EXCEPTION_HANDLERS as EXCEPTION_HANDLERS
from .web.logs import REQUEST_ID
from .web.metrics import MetricsPort, MetricsSettings
from .web.metrics import router as metrics
from .web.middleware import Observer
from .web.overload import Overload
from .web.read_your_writes import ReadYourWrites
from .web.request_metrics import RequestMetrics
from .web.settings import WebSettings
from .worker.app import configure
from .worker.settings import WorkerSettings


class ServiceSettings(WorkerSettings, MetricsSettings, WebSettings, DatabaseSettings):
    """All variables of the template; yours are in settings.py."""


PROJECT = "largest"
# Around that of api.py, and inside of it.
OUTER_MIDDLEWARE: list[Any] = [TraceRequests, ReadYourWrites, MetricsPort]
INNER_MIDDLEWARE: list[Any] = [Overload]
OBSERVERS: list[Observer] = [RequestMetrics()]
ROUTERS: list[APIRouter] = [metrics]
# Called at the start of each process, with its settings.
CONFIGURE: list[Callable[[ServiceSettings], None]] = [
    partial(configure, carried=[REQUEST_ID, READ_AFTER, TRACE_CONTEXT]),
    log_trace_id,
    trace_tasks,
]
# FastAPI would make a second span of each request.
TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
