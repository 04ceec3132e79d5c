"""The parts of this service, generated from its answers by `make update`."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from .db.features import DatabaseSettings
from .web import metrics
from .web.settings import WebSettings


class ServiceSettings(WebSettings, DatabaseSettings):
    """All variables of the template; yours are in settings.py."""


MIDDLEWARE: list[Any] = []
ROUTERS: list[APIRouter] = [metrics.router]
# Called at the start of each process, with its settings.
CONFIGURE: list[Callable[[ServiceSettings], None]] = []
