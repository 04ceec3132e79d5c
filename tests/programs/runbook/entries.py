"""Registers of the provocations of each heading of the runbook, and of their cures.

Functions without an argument open a database themselves, because the place and time of
opening is their matter; the others get a database of their own.
"""

import asyncio
import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from shop.db import Database, open_database
from shop.db.config.backend import DIALECT, DRIVER
from shop.models import Order
from shop.settings import Settings
from sqlalchemy import func, insert, literal_column, select, text

POSTGRESQL = ("asyncpg", "psycopg")
MYSQL = ("aiomysql", "asyncmy")
SERVERS = POSTGRESQL + MYSQL
EVERY = (*SERVERS, "aiosqlite")

SETTINGS = Settings.load().model_copy(
    update={
        "database_pool_size": 2,
        "database_max_overflow": 0,
        "database_acquire_timeout_seconds": 10,
        "database_connect_timeout_seconds": 10,
        "database_lock_timeout_seconds": 0.2,
    }
)
ORDER = select(Order).where(Order.customer == "ada").limit(1)
# What the server calls a connection, and how it ends one.
IDENTITY = {"postgresql": func.pg_backend_pid(), "mysql": func.connection_id()}
KILL = {"postgresql": "SELECT pg_terminate_backend({}, 5000)", "mysql": "KILL {}"}

PROVOCATIONS: dict[str, list[Callable[..., Any]]] = defaultdict(list)
CURES: dict[str, list[Callable[..., Any]]] = defaultdict(list)


def provokes(*words: str, on: Iterable[str] = EVERY) -> Callable[..., Any]:
    return register(PROVOCATIONS, words, on)


def cures(*words: str, on: Iterable[str] = EVERY) -> Callable[..., Any]:
    return register(CURES, words, on)


def register(table: Any, words: Iterable[str], on: Iterable[str]) -> Any:
    def keep(function: Any) -> Any:
        for each in words if DRIVER in on else ():
            table[each].append(function)
        return function

    return keep


def run(function: Callable[..., Any]) -> None:
    async def with_database() -> None:
        async with open_database(SETTINGS) as database:
            try:
                await function(database)
            finally:
                if DRIVER in SERVERS:
                    await ask(database)

    if inspect.signature(function).parameters:
        asyncio.run(with_database())
    elif inspect.iscoroutinefunction(function):
        asyncio.run(function())
    else:
        function()


class SpoiledError(Exception):
    """What follows the error has to suffer for it."""


async def ask(database: Database) -> None:
    """The units that come after one that fails get answers, and their own ones."""
    for number, unit in enumerate((database.read, database.write) * 3):
        try:
            async with unit() as session:
                answer = await session.scalar(select(literal_column(str(number))))
        except Exception as error:
            raise SpoiledError from error
        if answer != number:
            raise SpoiledError(f"{answer} is the answer to {number}")


async def read(database: Database) -> None:
    async with database.read() as session:
        assert (await session.scalars(ORDER)).one()


async def kill(database: Database, session: Any) -> None:
    """End the server's side of a session."""
    identity = await session.scalar(select(IDENTITY[DIALECT]))
    async with database.write() as other:
        await other.execute(text(KILL[DIALECT].format(identity)))


def taken() -> Any:
    """Insert what is there already."""
    return insert(Order).values(customer="eve", idempotency_key="taken")
