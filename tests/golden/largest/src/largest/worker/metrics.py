"""Metrics of tasks for Prometheus, and a line in the log for each."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from time import perf_counter
from typing import Any

from billiard import current_process  # type: ignore[import-untyped]
from celery.exceptions import (  # type: ignore[import-untyped]
    Reject,
    Retry,
    TimeLimitExceeded,
    WorkerLostError,
)
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.multiprocess import mark_process_dead

from .app import Configuration, beat_schedule, celery

OUTCOMES = ("done", "retried", "requeued", "failed", "killed")
TASKS_TOTAL = Counter("celery_tasks_total", "Attempts that ended.", ["task", "outcome"])
IN_PROGRESS = Gauge(
    "celery_tasks_in_progress", "Running.", ["task"], multiprocess_mode="livesum"
)
PROCESSES = Gauge(
    "celery_processes", "Processes that run tasks.", multiprocess_mode="livesum"
)
EVERY = Gauge(
    "celery_task_every_seconds", "Its period.", ["task"], multiprocess_mode="livemax"
)
WAIT = Histogram(
    "celery_task_wait_seconds",
    "From when a task was due until its attempt began.",
    ["task"],
    buckets=(0.01, 0.1, 0.5, 2, 10, 60, 600),
)
SECONDS = Histogram(
    "celery_task_seconds",
    "Duration of an attempt.",
    ["task"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 30, 60),
)

logger = logging.getLogger(__name__)


def facts(task: str, task_id: str) -> dict[str, object]:
    """Fields of a record of the log."""
    return {"task": task, "task_id": task_id}


@contextmanager
def track_task(task: str, task_id: str) -> Iterator[None]:
    started, outcome = perf_counter(), "failed"
    try:
        with IN_PROGRESS.labels(task).track_inprogress():
            yield
        outcome = "done"
    except Retry as retry:
        outcome = "retried"
        text = "task %s failed and is retried in %.1f s: %s"
        cause = str(retry.exc) or repr(retry.exc)
        logger.warning(text, task, retry.when, cause, extra=facts(task, task_id))
        raise
    except (Reject, SystemExit):  # this process has to stop: another one runs the task
        outcome = "requeued"
        raise
    finally:
        seconds = perf_counter() - started
        TASKS_TOTAL.labels(task, outcome).inc()
        SECONDS.labels(task).observe(seconds)
        milliseconds = round(seconds * 1000, 1)
        ended = facts(task, task_id) | {"outcome": outcome}
        ended["duration_ms"] = milliseconds
        logger.info("%(task)s %(outcome)s", ended, extra=ended)


def report_killed(
    sender: Any,
    task_id: str | None = None,
    exception: object = None,
    reason: Any = None,
    **_: Any,
) -> None:
    """Log and count a task whose process was killed: it could not do so itself.

    The parent gets Celery's signals `task_retry` and `task_failure` for it.
    """
    request, error = sender.request, reason.exc if reason else exception
    if not isinstance(error, (WorkerLostError, TimeLimitExceeded)):
        return
    if task_id not in (None, request.id):
        return  # a time limit is signalled twice, once without the request
    context = copy_context()
    for header, _get, set_value in Configuration.carried:
        context.run(set_value, request.get(header))
    TASKS_TOTAL.labels(sender.name, "killed").inc()
    killed = facts(sender.name, request.id) | {"outcome": "killed"}
    killed["next"] = f"comes again in {reason.when} s" if reason else "is given up"
    text = (
        "task %(task)s (%(task_id)s) was killed with its process, and %(next)s: %(e)s"
    )
    context.run(logger.error, text, killed | {"e": error}, extra=killed)


def begin_process(**_: Any) -> None:
    """Remove the gauges that the predecessor has left, and count this process."""
    mark_process_dead(getattr(current_process(), "index", "parent"))  # type: ignore[no-untyped-call]
    PROCESSES.set(1)
    for each in beat_schedule.values():
        EVERY.labels(each["task"]).set(each["schedule"])
    for task in celery.tasks:
        for outcome in () if task.startswith("celery.") else OUTCOMES:
            TASKS_TOTAL.labels(task, outcome)  # from 0 on, so that a first one is seen
