"""One event loop and one database for each process of a worker, as long as it lives."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from threading import Thread
from typing import Any, TypeVar

import uvloop
from celery import signals  # type: ignore[import-untyped]

from .db.fleet import of_worker
from .db.session import Database, open_database
from .settings import Settings

T = TypeVar("T")
Work = Callable[[Database], Awaitable[None]]

# What a rollback may take of a database in trouble.
GOODBYE_SECONDS = 10


class Process:
    """The loop runs on a thread of its own, also between two tasks.

    Else nobody would look after replicas and figures meanwhile; and a signal, which
    ends whatever the main thread does, would end the loop in the midst of a task.
    """

    def open(self, **_: Any) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._loop = self._runner.get_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stack = AsyncExitStack()
        database = open_database(of_worker(Settings.load()))
        self._database = self._await(self._stack.enter_async_context(database))
        self._task: asyncio.Task[None] | None = None

    def close(self, **_: Any) -> None:
        if not hasattr(self, "_database"):
            return  # the process that only has children
        self._await(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def run(self, work: Work) -> None:
        try:
            self._await(self._work(work))
        finally:
            if self._task:  # a signal ends the process: let the task roll back before
                self._await(self._give_up(self._task))

    async def _work(self, work: Work) -> None:
        self._task = asyncio.current_task()
        try:
            await work(self._database)
        finally:
            self._task = None

    async def _give_up(self, task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait({task}, timeout=GOODBYE_SECONDS)

    def _await(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


process = Process()
run = process.run
signals.worker_process_init.connect(process.open)
signals.worker_process_shutdown.connect(process.close)
# Without children (`--pool=solo`) a process hears of its end in this way.
signals.worker_shutdown.connect(process.close)
