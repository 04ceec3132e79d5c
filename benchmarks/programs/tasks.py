"""Prints the tasks a second of a worker, as the service runs them and as others do.

Runs in the environment of the rendered service, whose package is `service`, on a
database and a broker that the environment names. All are published before the worker
starts, and counted from the first to the last.
"""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found, misc, untyped-decorator"

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from service.db import Database
from service.features import CONFIGURE
from service.settings import Settings
from service.worker.app import celery, task
from sqlalchemy import NullPool, literal, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

KINDS = ("rendered", "null_pool")
CREATE = text("CREATE TABLE done (kind text, at timestamptz, session int)")
INSERT = text("INSERT INTO done VALUES (:kind, clock_timestamp(), pg_backend_pid())")
SUMMARY = text("""
    SELECT count(*), extract(epoch FROM max(at) - min(at)), count(DISTINCT session)
    FROM done WHERE kind = :kind
""")
CLEAR = text("TRUNCATE done")
engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"),
    poolclass=NullPool,
)


@task()
async def rendered(database: Database) -> None:
    async with database.read() as session:
        await session.scalar(select(literal(1)))
    async with database.write() as session:
        await session.execute(INSERT, {"kind": "rendered"})


@celery.task(name="tasks.null_pool")
def null_pool() -> None:
    """Run a loop for each task, and a connection for each session."""

    async def work() -> None:
        async with AsyncSession(engine) as session:
            await session.scalar(select(literal(1)))
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(INSERT, {"kind": "null_pool"})

    asyncio.run(work())


def execute(statement: Any, **parameters: str) -> Any:
    async def work() -> Any:
        async with engine.begin() as connection:
            done = await connection.execute(statement, parameters)
            return done.one() if done.returns_rows else None

    return asyncio.run(work())


def measure(kind: str, number: int) -> dict[str, float]:
    execute(CLEAR)
    for _ in range(number):
        celery.send_task(f"tasks.{kind}")
    options = ("--include=tasks", "--concurrency=2")
    with subprocess.Popen(
        [sys.executable, "-m", "service.worker", "worker", *options],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        while execute(SUMMARY, kind=kind)[0] < number:
            assert worker.poll() is None
            time.sleep(0.2)
        worker.terminate()
    _, seconds, sessions = execute(SUMMARY, kind=kind)
    return {"rate": number / float(seconds), "connections": sessions}


if __name__ == "__main__":
    rounds, number = (int(argument) for argument in sys.argv[1:])
    for configure in CONFIGURE:
        configure(Settings.load())
    execute(CREATE)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind in KINDS:
            found[kind].append(measure(kind, number))
    print(json.dumps(found))
