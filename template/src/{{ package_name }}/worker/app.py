"""Tasks: the decorator `task()`, and how a task is published."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from time import time
from typing import Any, Concatenate, Generic, ParamSpec, Self

from celery import Celery, signals  # type: ignore[import-untyped]
from celery import Task as CeleryTask
from celery.exceptions import Reject  # type: ignore[import-untyped]
from kombu.exceptions import OperationalError
from prometheus_client import Counter

from ..db.database import Database
from .settings import WorkerSettings

P = ParamSpec("P")
Work = Callable[[Database], Awaitable[None]]
Function = Callable[Concatenate[Database, P], Awaitable[None]]
# Header of a message; how its value is read where a task is published, and set where
# the task runs.
Carried = tuple[str, Callable[[], str | None], Callable[[str | None], object]]

# Header of a message: when the task is due, in seconds since 1970.
DUE_AT = "due_at"
PACKAGE = __name__.partition(".")[0]
# In all: a thread that waits for one address of the broker waits 3 s at most.
PUBLISH_SECONDS = 5
# Pauses of 1 + 2 + ... + 32 + 4 x 60 s, half of each at random; then the task fails.
# The pause after a process was killed is 1 s.
RETRIES = {"max_retries": 10, "default_retry_delay": 1}

UNPUBLISHED = Counter(
    "celery_tasks_unpublished_total", "Tasks that no broker took.", ["task"]
)

logger = logging.getLogger(__name__)
# Tasks are found in tasks.py, and in the modules that the routes import.
celery = Celery(
    PACKAGE,
    include=[f"{PACKAGE}.{name}" for name in ("worker.execution", "tasks", "api")],
)
beat_schedule: dict[str, Any] = {}
# Apart from the default threads of the event loop, which resolve host names.
publish_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="publish")


class Configuration:
    """What `configure()` was called with, and how a worker runs a task."""

    settings: WorkerSettings
    carried: Sequence[Carried] = ()
    # Set by execution.py, which only a worker imports.
    track: Callable[[str, str], AbstractContextManager[None]]
    run: Callable[[Any, Work], None]


def configure(settings: WorkerSettings, carried: Sequence[Carried]) -> None:
    """To be called once in a process that publishes or runs tasks."""
    Configuration.settings, Configuration.carried = settings, carried
    celery.conf.update(settings.celery(PACKAGE, beat_schedule))


class TrackedTask(CeleryTask):  # type: ignore[misc]
    """Counted and logged outside of Celery's `autoretry_for`, which calls `retry()`."""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        with Configuration.track(self.name, self.request.id):
            self.run(*args, **kwargs)

    def retry(self, *args: Any, countdown: float | None = None, **options: Any) -> Any:
        pause = self.default_retry_delay if countdown is None else countdown
        pause = min(pause, Configuration.settings.max_countdown_seconds)
        try:
            return super().retry(*args, countdown=pause, **options)
        except Reject as rejected:  # no broker takes it: its message stays
            raise Reject(rejected.reason, requeue=True) from None


@dataclass(frozen=True)
class Task(Generic[P]):
    """Published by `enqueue()`; `function` can be called as well."""

    function: Function[P]
    _registered: Any
    _options: Mapping[str, Any] = field(default_factory=dict)

    def with_options(self, **options: Any) -> Self:
        """Options of Celery's `apply_async()`: `countdown` or `expires`, in seconds.

        A worker holds the task for as long as it counts down, and the broker would
        deliver it to another one if that took too long: ValueError.
        """
        longest = Configuration.settings.max_countdown_seconds
        if options.get("countdown", 0) > longest:
            text = f"A countdown may take {longest:g} s: use a periodic task."
            raise ValueError(text)
        return replace(self, _options={**self._options, **options})

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Publish it, after the commit of what it needs.

        False, and a line in the log, if the broker does not take it. For a task that
        must run nevertheless, a periodic task publishes again what is on record.
        """
        publish = partial(self._registered.apply_async, args, kwargs, **self._options)
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                await asyncio.get_running_loop().run_in_executor(
                    publish_threads, copy_context().run, publish
                )
        except (OperationalError, TimeoutError) as error:
            text = str(error) or f"{type(error).__name__} after {PUBLISH_SECONDS} s"
            facts = {"task": self._registered.name, "error": text}
            logger.warning("task %(task)s not published: %(error)s", facts, extra=facts)
            UNPUBLISHED.labels(self._registered.name).inc()
            return False
        return True


def task(
    *, every: float | None = None, **options: Any
) -> Callable[[Function[P]], Task[P]]:
    """Make a task of an `async def` whose first parameter is the database.

    It may be delivered twice, so it must do no harm to run it twice. `every`: also
    each so many seconds, without arguments. Options are those of Celery's tasks:
    `autoretry_for=(OSError,)` repeats it after errors of yours.
    """
    # A task that cannot be done now stays with the broker.
    rejected = (Reject, *options.pop("dont_autoretry_for", ()))
    options |= {"dont_autoretry_for": rejected}

    def decorate(function: Function[P]) -> Task[P]:
        module, name = function.__module__, function.__name__
        name = f"{module.removeprefix(f'{PACKAGE}.')}.{name}"

        def run(self: Any, *args: P.args, **kwargs: P.kwargs) -> None:
            Configuration.run(self, lambda each: function(each, *args, **kwargs))

        UNPUBLISHED.labels(name)  # from 0 on, so that a first one is seen
        base = type("Base", (TrackedTask, options.pop("base", CeleryTask)), {})
        how = {"name": name, "bind": True, "base": base}
        registered = celery.task(run, **how, **RETRIES | options)
        if every:
            due = {"task": name, "schedule": every, "options": {"expires": every}}
            beat_schedule[name] = due
        return Task(function, registered)

    return decorate


def _inject(headers: dict[str, Any], **_: Any) -> None:
    for header, get, _set in Configuration.carried:
        # A retry by the parent of a killed process has no context: what the message
        # says already stays.
        if value := get():
            headers[header] = value
    due = headers.get("eta")
    headers[DUE_AT] = datetime.fromisoformat(due).timestamp() if due else time()
    # Celery would log the arguments: they are customers' data.
    headers |= {"argsrepr": "...", "kwargsrepr": "..."}


signals.before_task_publish.connect(_inject)
