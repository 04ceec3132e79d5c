"""Executes tasks: bounded in time, and repeated after a fault that may pass."""

import asyncio
import logging
import random
from functools import partial
from time import time
from typing import Any

from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from celery.worker import state  # type: ignore[import-untyped]

from ..db.database import Database
from ..db.errors import (
    CommitOutcomeUnknown,
    FaultKind,
    OperationTimeout,
    classify,
    safe_message,
)
from . import runtime
from .app import DUE_AT, Configuration, Work
from .metrics import WAIT, facts, track_task

# Worth another try, of a task that must do no harm to run twice.
TRANSIENT = {FaultKind.BUSY, FaultKind.UNAVAILABLE, FaultKind.OUTCOME_UNKNOWN}
# Header of a message: since when the task finds no database, in seconds since 1970.
UNAVAILABLE_SINCE = "unavailable_since"

logger = logging.getLogger(__name__)


class TaskFailed(Exception):
    """An error of the database, without values of the data."""


def execute(task: Any, work: Work) -> None:
    request = task.request
    for header, _get, set_value in Configuration.carried:
        set_value(request.get(header))
    if request.delivery_info.get("redelivered"):
        text = "task %s is delivered again: its worker was gone, had to stop, or lost"
        text += " the broker"
        logger.warning(text, task.name, extra=facts(task.name, request.id))
    if due_at := request.get(DUE_AT):
        WAIT.labels(task.name).observe(max(time() - due_at, 0))
    try:
        seconds = Configuration.settings.celery_task_timeout_seconds
        return runtime.run(partial(_run_bounded, work, seconds))
    except Exception as error:
        if state.should_terminate:  # a worker without child processes has to stop
            raise Reject("not done in time", requeue=True) from None
        fault = classify(error)
        if not fault:
            raise
        failure = TaskFailed(f"{fault}: {safe_message(error)}")
    if fault in TRANSIENT:
        _retry(task, fault, failure)
    raise failure


Configuration.run, Configuration.track = execute, track_task


async def _run_bounded(work: Work, seconds: float, database: Database) -> None:
    commits = database.commits.interrupted
    try:
        async with asyncio.timeout(seconds) as limit:
            await work(database)
    except TimeoutError as error:
        if not limit.expired():
            raise
        if database.commits.interrupted > commits:
            database.router.may_have_committed()
            text = f"COMMIT was running after {seconds:g} s"
            raise CommitOutcomeUnknown(text) from error
        raise OperationTimeout(f"a task of more than {seconds:g} s") from error
    except SystemExit as error:
        # It would end the event loop, and its caller would wait for ever.
        raise RuntimeError(f"A task must not exit: {error}") from error


def _retry(task: Any, fault: FaultKind, failure: TaskFailed) -> None:
    """Publish the task again, with a pause, unless it has had its retries.

    Without a database retries are bounded by time and not counted: Celery's retry()
    counts each, and ten of them are over before a longer outage is.
    """
    request, settings = task.request, Configuration.settings
    retries, since = request.retries, None
    if fault is FaultKind.UNAVAILABLE and task.max_retries != 0:
        since = request.get(UNAVAILABLE_SINCE) or time()
        pause = max(time() - since, 1)
        is_over = time() - since > settings.celery_outage_seconds
    else:
        pause, retries = 2.0**retries, retries + 1
        is_over = task.max_retries is not None and retries > task.max_retries
    if is_over or request.called_directly:
        return
    pause = min(pause, settings.max_countdown_seconds) * random.uniform(0.5, 1)  # noqa: S311
    headers = {**(request.headers or {}), UNAVAILABLE_SINCE: since}
    options = {"countdown": pause, "retries": retries, "headers": headers}
    try:
        task.signature_from_request(request, **options).apply_async()
    except Exception:
        # The broker is away as well: its message stays, and comes again.
        raise Reject(str(failure), requeue=True) from None
    raise Retry(exc=failure, when=pause)
