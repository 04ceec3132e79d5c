"""The parts of this service, generated from its answers by `make update`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter

from .db.features import DatabaseSettings
from .db.replicas.watermark import READ_AFTER
from .web import metrics
from .web.middleware import REQUEST_ID
from .web.read_your_writes import ReadYourWrites
from .web.settings import WebSettings
from .worker.app import configure
from .worker.settings import WorkerSettings


class ServiceSettings(WorkerSettings, WebSettings, DatabaseSettings):
    """All variables of the template; yours are in settings.py."""


MIDDLEWARE: list[Any] = [ReadYourWrites]
ROUTERS: list[APIRouter] = [metrics.router]
# Called at the start of each process, with its settings.
CONFIGURE: list[Callable[[ServiceSettings], None]] = [
    partial(configure, carried=[REQUEST_ID, READ_AFTER])
]
