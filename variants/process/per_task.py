"""An event loop, a database and at most one connection for each task, and none between.

A pool of one, and not an unpooled connection for each session: the second session of a
task has that of the first, and a task has no more than the budget counts.
"""

import asyncio
from collections.abc import Awaitable, Callable

import uvloop

from .db.fleet import of_worker
from .db.session import Database, open_database
from .settings import Settings

Work = Callable[[Database], Awaitable[None]]


def run(work: Work) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_alone(work))


async def _alone(work: Work) -> None:
    async with open_database(of_worker(Settings.load())) as database:
        await work(database)
