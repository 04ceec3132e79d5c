"""Executes tasks: bounded in time, and repeated after a fault that may pass."""

import asyncio
import logging
import random
from functools import partial
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
from .app import Configuration, Work
from .metrics import track_task

# Worth another try, of a task that must do no harm to run twice.
TRANSIENT = {FaultKind.BUSY, FaultKind.UNAVAILABLE, FaultKind.OUTCOME_UNKNOWN}

logger = logging.getLogger(__name__)


class TaskFailed(Exception):
    """An error of the database, without values of the data."""


def execute(task: Any, work: Work) -> None:
    for header, _get, set_value in Configuration.carried:
        set_value(task.request.get(header))
    with track_task(task.name):
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
            _retry(task, failure)
        raise failure


Configuration.run = execute


async def _run_bounded(work: Work, seconds: float, database: Database) -> None:
    commits = database.interrupted_commits
    try:
        async with asyncio.timeout(seconds) as limit:
            await work(database)
    except TimeoutError as error:
        if not limit.expired():
            raise
        if database.interrupted_commits > commits:
            text = f"COMMIT was running after {seconds:g} s"
            raise CommitOutcomeUnknown(text) from error
        raise OperationTimeout(f"a task of more than {seconds:g} s") from error
    except SystemExit as error:
        # It would end the event loop, and its caller would wait for ever.
        raise RuntimeError(f"A task must not exit: {error}") from error


def _retry(task: Any, failure: TaskFailed) -> None:
    longest = Configuration.settings.max_countdown_seconds
    pause = min(2**task.request.retries, longest) * random.uniform(0.5, 1)  # noqa: S311
    try:
        task.retry(exc=failure, countdown=pause)
    except Retry:
        logger.warning("task %s failed and is retried: %s", task.name, failure)
        raise
    except Reject:
        # The broker is away as well. Celery would lose the task when it is back.
        raise Reject(str(failure), requeue=True) from None
