"""Traces the validation of a connection: the ping at its checkout."""

from collections.abc import Callable
from typing import Any, TypeVar

from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncEngine

from ..engine.driver import ping
from ..engine.watchdog import Watchdog
from .spans import is_traced, span

T = TypeVar("T")


class TracedWatchdog(Watchdog):
    """The watchdog bounds each wait for the server, that for a ping included."""

    def within(
        self, connection: Any, seconds: float, wait: Callable[..., T], *args: Any
    ) -> T:
        if ping not in args or not is_traced():
            return super().within(connection, seconds, wait, *args)
        with span("validate", kind=SpanKind.CLIENT):
            return super().within(connection, seconds, wait, *args)


def trace_validation(engine: AsyncEngine, *_: object) -> None:
    watchdog = getattr(engine.sync_engine.dialect, "watchdog", None)
    if watchdog:  # none of a migration
        watchdog.__class__ = TracedWatchdog
