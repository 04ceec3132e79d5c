"""Prints the CPU of one read, in microseconds, with and without what protects it.

Runs in the environment of the rendered service, whose package is `service`. All take
turns on one loop, and the best round of each counts.
"""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found"

import json
import sys
from time import process_time
from typing import Any

import uvloop
from service.db import Database
from service.db.config.backend import DIALECT, DRIVER
from service.db.engine.create import create_engine
from service.db.engine.driver import connect_args
from service.db.primary import PrimaryOnly
from service.settings import Settings
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

KEPT = select(text("1"))
ROUNDS, READS = (int(argument) for argument in sys.argv[1:])


def stock(settings: Settings, **options: Any) -> AsyncEngine:
    """Make the engine of the service on SQLAlchemy's pool, without a watchdog."""
    return create_async_engine(
        settings.server.url(f"{DIALECT}+{DRIVER}"),
        connect_args=connect_args(settings.server, settings.limits),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        hide_parameters=True,
        **options,
    )


async def main() -> None:
    settings = Settings.load()
    resting = {"isolation_level": "AUTOCOMMIT", "skip_autocommit_rollback": True}
    engines = {
        "service": create_engine(settings.server, settings.limits),
        "plain pool": stock(settings, **resting),
        "plain pool, pre_ping": stock(settings, **resting, pool_pre_ping=True),
        "as articles, pre_ping": stock(settings, pool_pre_ping=True),
    }
    best = dict.fromkeys(engines, float("inf"))
    for _ in range(ROUNDS):
        for name, engine in engines.items():
            database = Database(engine, settings, PrimaryOnly(engine))
            began = process_time()
            for _ in range(READS):
                async with database.read() as session:
                    await session.execute(KEPT)
            best[name] = min(best[name], (process_time() - began) / READS * 1e6)
    for engine in engines.values():
        await engine.dispose()
    print(json.dumps(best))


uvloop.run(main())
