"""Check of the connection budget before a worker forks: see DATABASE_BUDGET_CHECK."""

import asyncio
import logging
import os
import sys
from multiprocessing import get_context

from ..db.doctor.startup_check import START_SECONDS, check_budget
from ..db.engine.create import create_unpooled_engine
from ..db.features import DatabaseSettings

REFUSED = 3

logger = logging.getLogger(__name__)


def check_budget_before_fork(settings: DatabaseSettings) -> None:
    """Log whether all connections fit, or end the process.

    In a child, so that the processes of the worker inherit no connection.
    """
    if settings.database_budget_check == "off":
        return
    child = get_context("fork").Process(target=_check, args=(settings,))
    child.start()
    child.join()
    if child.exitcode == REFUSED and settings.database_budget_check == "refuse":
        sys.exit(REFUSED)


def _check(settings: DatabaseSettings) -> None:
    async def check() -> None:
        hooks = settings.hooks
        engine = create_unpooled_engine(settings.server, settings.limits, hooks)
        task = asyncio.create_task(check_budget(engine, settings))
        await asyncio.wait({task}, timeout=START_SECONDS)
        if not task.done():
            text = "connection budget: cannot be checked: no answer within %d s"
            logger.warning(text, START_SECONDS)
        # Now: the cleanup after a cancelled connect to a silent server takes longer.
        os._exit(REFUSED if task.done() and task.result() == "fail" else 0)

    asyncio.run(check())
