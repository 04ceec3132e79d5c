"""Each driver without SQLAlchemy: how to connect, to read rows, and to write.

Runs in the environment of the rendered service, which has one of these drivers.
"""

# There is no driver but asyncpg where mypy runs.
# mypy: disable-error-code="import-not-found, import-untyped"
# ruff: noqa: PLC0415

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

URL = os.environ["DATABASE_URL"]
DRIVER = os.environ["BENCH_DRIVER"]
IS_POOLED = bool(os.environ.get("BENCH_POOLER"))
IS_MYSQL = DRIVER in ("aiomysql", "asyncmy")
SLOW = "SELECT SLEEP(0.1)" if IS_MYSQL else "SELECT pg_sleep(0.1)"
# Behind a pooler in transaction mode a connection has no statement of its own.
UNPREPARED = {"statement_cache_size": 0} if IS_POOLED else {}

Statements = Sequence[tuple[str, list[tuple[Any, ...]]]]


class Asyncpg:
    @staticmethod
    async def connect() -> Any:
        import asyncpg

        return await asyncpg.connect(URL, **UNPREPARED)

    @staticmethod
    async def fetch(connection: Any, sql: str, values: tuple[Any, ...]) -> Any:
        return await connection.fetch(sql, *values)

    @staticmethod
    async def write(connection: Any, statements: Statements) -> None:
        async with connection.transaction():
            for sql, rows in statements:
                for row in rows:
                    await connection.execute(sql, *row)


class Psycopg:
    @staticmethod
    async def connect() -> Any:
        import psycopg

        return await psycopg.AsyncConnection.connect(URL, autocommit=True)

    @staticmethod
    async def fetch(connection: Any, sql: str, values: tuple[Any, ...]) -> Any:
        return await (await connection.execute(sql, values)).fetchall()

    @staticmethod
    async def write(connection: Any, statements: Statements) -> None:
        async with connection.transaction(), connection.cursor() as cursor:
            for sql, rows in statements:
                for row in rows:
                    await cursor.execute(sql, row)


class MySQL:
    @staticmethod
    async def connect() -> Any:
        url = urlsplit(URL)
        where = {"host": url.hostname, "port": url.port, "db": url.path[1:]}
        with suppress(ImportError):
            import aiomysql

            return await aiomysql.connect(**where, user="root", autocommit=True)
        import asyncmy

        return await asyncmy.connect(**where, user="root", autocommit=True)

    @staticmethod
    async def fetch(connection: Any, sql: str, values: tuple[Any, ...]) -> Any:
        async with connection.cursor() as cursor:
            await cursor.execute(sql, values)
            return await cursor.fetchall()

    @staticmethod
    async def write(connection: Any, statements: Statements) -> None:
        await connection.begin()
        async with connection.cursor() as cursor:
            for sql, rows in statements:
                for row in rows:
                    await cursor.execute(sql, row)
        await connection.commit()


OPERATIONS: Any = {"asyncpg": Asyncpg, "psycopg": Psycopg}.get(DRIVER, MySQL)


def sqlalchemy_url() -> str:
    return f"{'mysql' if IS_MYSQL else 'postgresql'}+{DRIVER}://{URL.split('://')[1]}"


def connect_args() -> dict[str, Any]:
    """What articles show for a driver behind a pooler in transaction mode."""
    if not IS_POOLED:
        return {}
    return {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
