"""Traces attempts of tasks, below the span of the request that has published them."""

from collections.abc import Callable
from functools import partial
from typing import Any

from celery import signals  # type: ignore[import-untyped]
from opentelemetry.context import Context, attach
from opentelemetry.trace import SpanKind

from ..db.database import Database
from ..db.tracing.spans import current_span
from ..worker.app import Configuration, Work
from .context import W3C
from .provider import flush, set_up

HEADER = "traceparent"


def trace_tasks(_: object) -> None:
    """In a process of a worker: elsewhere the signals do not come."""
    signals.worker_process_init.connect(_set_up)
    signals.worker_process_shutdown.connect(_flush)
    # The signal of a worker without child processes (`--pool=solo`).
    signals.worker_shutdown.connect(_flush)


def _set_up(**_: Any) -> None:
    set_up()
    Configuration.run = partial(_run, Configuration.run)


def _flush(**_: Any) -> None:
    flush()


def _run(run: Callable[[Any, Work], None], task: Any, work: Work) -> None:
    request = task.request

    async def attempt(database: Database) -> None:
        attributes = {
            "messaging.system": "celery",
            "messaging.message.id": request.id,
            "celery.retries": request.retries,
        }
        kind = SpanKind.CONSUMER
        with current_span(f"run {task.name}", attributes, kind=kind):
            await work(database)

    run(task, attempt)


def inject() -> str | None:
    carrier: dict[str, str] = {}
    W3C.inject(carrier)
    return carrier.get(HEADER)


def extract(traceparent: str | None) -> None:
    """Not detached: the next task or request sets its own."""
    carrier = {HEADER: traceparent} if traceparent else {}
    attach(W3C.extract(carrier, Context()))


# Header of a task's message, and how it is written and read.
TRACE_CONTEXT = (HEADER, inject, extract)
