"""Warnings of the connection pool, the watchdog, the health probe, the budget check."""

import asyncio
from contextlib import suppress
from unittest.mock import patch

from entries import DRIVER, ORDER, SERVERS, SETTINGS, cures, kill, provokes, read
from shop.db import open_database
from shop.db.config.backend import DIALECT
from shop.db.doctor.startup_check import open_database_checked
from shop.models import Order
from shop.web.health import Health
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

FULL = ("no connection within", "connection pool rejected")
LEAK = "possible leak"
SILENT = "database gave no answer within"
RETIRED = "connection pool retired"
ROLLBACK = "ROLLBACK failed"
HEALTH = "readiness: the database is"
BUDGET = "connection budget"

SLEEP = {"postgresql": "SELECT pg_sleep(15)", "mysql": "SELECT SLEEP(15)"}
# What a primary answers to a write after it has become a standby.
REJECTED = {
    "postgresql": ("SET TRANSACTION READ ONLY", insert(Order).values(customer="eve")),
    "mysql": (
        "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = '--read-only'",
    ),
}
UNREACHABLE = (
    {"database_port": 1} if DRIVER in SERVERS else {"database_path": "/missing/file"}
)
LEAKS_SOON = patch("shop.db.engine.metrics.LEAK_SECONDS", 2)


def with_settings(**changes):
    return open_database(SETTINGS.model_copy(update=changes))


@provokes(*FULL)
async def hold_a_connection_and_wait_for_another(database):
    full = asyncio.Barrier(SETTINGS.database_pool_size)

    async def handler():
        async with database.engine.connect() as connection:
            await connection.execute(ORDER)
            await full.wait()
            database.engine.pool._timeout = 0.5
            await read(database)

    done = await asyncio.gather(
        *(handler() for _ in range(full.parties)), return_exceptions=True
    )
    await asyncio.sleep(1.2)  # the pool logs once a second
    raise next(filter(None, done))


@cures(*FULL)
async def hold_one_session_each(database):
    await asyncio.gather(*(read(database) for _ in range(50)))
    await asyncio.sleep(1.2)


async def hold(database, seconds):
    with LEAKS_SOON:
        async with database.write() as session:
            await session.scalars(ORDER)
            await asyncio.sleep(seconds)
        await asyncio.sleep(0.3)


@provokes(LEAK)
async def hold_a_connection_for_long(database):
    await hold(database, 2.5)


@cures(LEAK)
async def end_the_session_before(database):
    await hold(database, 0.01)


async def run_slow_statement(**limits):
    async with with_settings(**limits) as database, database.write() as session:
        await session.execute(text(SLEEP[DIALECT]))


@provokes(SILENT, on=SERVERS)
async def wait_without_a_limit_of_the_server():
    await run_slow_statement(database_client_timeout_seconds=0.5)


@cures(SILENT, on=SERVERS)
async def let_the_server_end_a_slow_statement():
    with suppress(DBAPIError):
        await run_slow_statement(
            database_statement_timeout_seconds=0.3, database_client_timeout_seconds=10
        )


@provokes(RETIRED, on=SERVERS)
async def write_to_a_standby(database):
    async with database.write() as session:
        for statement in REJECTED[DIALECT]:
            each = text(statement) if isinstance(statement, str) else statement
            await session.execute(each)


@cures(RETIRED, ROLLBACK, on=SERVERS)
async def write_to_the_primary(database):
    async with database.write() as session:
        await session.execute(text("SELECT 1"))


@provokes(ROLLBACK, on=SERVERS)
async def fail_after_the_connection_is_lost(database):
    async with database.write() as session:
        await kill(database, session)
        raise ZeroDivisionError


async def probe(**changes):
    async with with_settings(**changes) as database:
        health = Health("database", database.ping)
        await health.state()
        if health._probe:
            await health._probe
        return database.was_reached


@provokes(HEALTH)
async def probe_a_database_that_is_unreachable():
    assert not await probe(**UNREACHABLE)


@cures(HEALTH)
async def probe_the_database():
    assert await probe()


async def start(**changes):
    async with open_database_checked(SETTINGS.model_copy(update=changes)):
        # It is cancelled with the service.
        checks = [
            task
            for task in asyncio.all_tasks()
            if task.get_coro().__name__ == "check_budget"
        ]
        await asyncio.wait(checks, timeout=30)


@provokes(BUDGET, on=SERVERS)
async def open_more_than_the_server_gives():
    await start(database_pool_size=10_000)


@provokes(BUDGET, on=SERVERS)
async def start_without_the_server():
    await start(**UNREACHABLE)


@cures(BUDGET, on=SERVERS)
async def open_fewer():
    await start(database_pool_size=1)
