"""Runtime of tasks: an event loop, a database and at most one connection for each task.

A pool of one, not an unpooled connection: the second session of a task uses that of
the first, and a task opens no more connections than the budget counts.
"""

import asyncio

import uvloop

from ..db.open import open_database
from .app import Configuration, Work


def run(work: Work) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(work))


async def _run(work: Work) -> None:
    async with open_database(Configuration.settings.for_worker()) as database:
        await work(database)
