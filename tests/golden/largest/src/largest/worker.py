"""Tasks: how a function becomes one, is asked for, and is tried again."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Concatenate, Generic, ParamSpec, Self

from celery import Celery, signals  # type: ignore[import-untyped]
from celery.exceptions import Reject  # type: ignore[import-untyped]
from celery.worker import state  # type: ignore[import-untyped]
from kombu.exceptions import OperationalError

from .db.faults import Fault, OutcomeUnknown, TookTooLong, classify, describe
from .db.session import Database
from .origin import adopt
from .origin import headers as origin
from .process import Work, run
from .task_figures import observed
from .worker_settings import WorkerSettings

P = ParamSpec("P")
Function = Callable[Concatenate[Database, P], Awaitable[None]]

PACKAGE = __name__.partition(".")[0]
# In all: a thread that waits for one address of the broker waits 3 s at most.
PUBLISH_SECONDS = 5
# Worth another try, of a task that must do no harm to run twice.
TRANSIENT = {Fault.BUSY, Fault.UNAVAILABLE, Fault.OUTCOME_UNKNOWN}
# After pauses of 1 + 2 + ... + 32 + 4 x 60 s, half of it at random, it is given up. One
# of a process that was killed is 1 s.
RETRIES = {"max_retries": 10, "default_retry_delay": 1}

logger = logging.getLogger(__name__)
# A wrong environment ends the process here, and not at the first task.
settings = WorkerSettings.load()
schedule: dict[str, Any] = {}
# Tasks are found in jobs.py, and in what the routes of the service import.
app = Celery(PACKAGE, include=[f"{PACKAGE}.jobs", f"{PACKAGE}.api"])
app.config_from_object(settings.celery(PACKAGE, schedule))
# Of their own: the loop's default threads ask for the addresses of hosts.
publishers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="publish")


class TaskFailed(Exception):
    """What the log may say of an error of the database: no value of the data."""


@dataclass(frozen=True)
class Task(Generic[P]):
    """To be asked for by `enqueue()`; `function` can be called as well."""

    function: Function[P]
    _registered: Any
    _options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Self:
        """Those of Celery's `apply_async()`: `countdown` or `expires`, in seconds.

        A worker holds the task for as long as it counts down, and the broker would give
        it to another one if that took too long: ValueError.
        """
        if options.get("countdown", 0) > settings.longest_pause_seconds:
            most = f"{settings.longest_pause_seconds:g} s"
            raise ValueError(f"A countdown may take {most}: let a periodic task ask.")
        return replace(self, _options={**self._options, **options})

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Hand it to the broker, after the commit of what it needs.

        False, and a line in the log: the broker did not take it. What must be done
        nevertheless is on record, and a periodic task enqueues it again.
        """
        publish = partial(self._registered.apply_async, args, kwargs, **self._options)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await asyncio.get_running_loop().run_in_executor(
                    publishers, copy_context().run, publish
                )
        except (OperationalError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            logger.warning("%s not enqueued: %s", self._registered.name, reason)
            return False
        return True


def task(
    *, every: float | None = None, **options: Any
) -> Callable[[Function[P]], Task[P]]:
    """Make a task of an `async def` whose first parameter is the database.

    It may be delivered twice, so it must do no harm to run it twice. `every`: also
    each so many seconds, without arguments. Options are those of Celery's tasks.
    """

    def decorate(function: Function[P]) -> Task[P]:
        module, name = function.__module__, function.__name__
        name = f"{module.removeprefix(f'{PACKAGE}.')}.{name}"

        def attempt(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
            _attempt(self, lambda database: function(database, *args, **kwargs))

        registered = app.task(attempt, name=name, bind=True, **RETRIES | options)
        if every:
            due = {"task": name, "schedule": every, "options": {"expires": every}}
            schedule[name] = due
        return Task(function, registered)

    return decorate


async def _bounded(work: Work, seconds: float, database: Database) -> None:
    commits = database.interrupted_commits
    try:
        async with asyncio.timeout(seconds) as limit:
            await work(database)
    except TimeoutError as error:
        if not limit.expired():
            raise
        if database.interrupted_commits > commits:
            raise OutcomeUnknown(f"COMMIT was under way after {seconds:g} s") from error
        raise TookTooLong(f"a task of more than {seconds:g} s") from error
    except SystemExit as error:
        # It would end the loop, and whoever waits for that would wait for ever.
        raise RuntimeError(f"A task must not exit: {error}") from error


def _attempt(task: Any, work: Work) -> None:
    adopt(task.request.get)
    with observed(task.name):
        try:
            seconds = settings.celery_task_timeout_seconds
            return run(partial(_bounded, work, seconds))
        except Exception as error:
            if state.should_terminate:  # a worker without children that has to stop
                raise Reject("not done in time", requeue=True) from None
            fault = classify(error)
            if not fault:
                raise
            failure = TaskFailed(f"{fault}: {describe(error)}")
        if fault in TRANSIENT:
            _retry(task, failure)
        raise failure


def _retry(task: Any, failure: TaskFailed) -> None:
    longest = settings.longest_pause_seconds
    pause = min(2**task.request.retries, longest) * random.uniform(0.5, 1)  # noqa: S311
    try:
        task.retry(exc=failure, countdown=pause)
    except Reject:
        # The broker is away as well. Celery would forget the task when it is back.
        raise Reject(str(failure), requeue=True) from None


def _tell_origin(headers: dict[str, Any], **_: Any) -> None:
    # Who tries again what a killed process was at knows nothing of the request: what
    # the message says already remains.
    headers |= {name: value for name, value in origin().items() if value}
    # Celery would write the arguments into the log: they are customers' data.
    headers |= {"argsrepr": "...", "kwargsrepr": "..."}


signals.before_task_publish.connect(_tell_origin)
