"""Runtime of tasks: one event loop and one database for each process of a worker."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from threading import Thread
from typing import Any, TypeVar

import uvloop
from celery import signals  # type: ignore[import-untyped]

from ..db.open import open_database
from .app import Configuration, Work

T = TypeVar("T")

# For the rollback of a task whose process has to end.
CANCEL_GRACE_SECONDS = 10


class EventLoopThread:
    """The loop runs in a thread of its own, also between two tasks.

    So replicas are probed and metrics are kept meanwhile; and a signal, which
    interrupts the main thread wherever it is, does not interrupt the loop.
    """

    def open(self, **_: Any) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        database = open_database(Configuration.settings.for_worker())
        self._database = self._run_sync(self._stack.enter_async_context(database))
        self._task: asyncio.Task[None] | None = None

    def close(self, **_: Any) -> None:
        if not hasattr(self, "_database"):
            return  # the parent, which runs no tasks
        self._run_sync(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def run(self, work: Work) -> None:
        try:
            self._run_sync(self._run(work))
        finally:
            if (
                task := self._task
            ):  # a signal ends the process: let the task roll back before
                self._run_sync(self._cancel(task))

    async def _run(self, work: Work) -> None:
        self._task = asyncio.current_task()
        try:
            await work(self._database)
        finally:
            self._task = None

    async def _cancel(self, task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_GRACE_SECONDS)

    def _run_sync(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


_runtime = EventLoopThread()
run = _runtime.run
signals.worker_process_init.connect(_runtime.open)
signals.worker_process_shutdown.connect(_runtime.close)
# The signal of a worker without child processes (`--pool=solo`).
signals.worker_shutdown.connect(_runtime.close)
