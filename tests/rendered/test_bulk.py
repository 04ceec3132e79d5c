"""Exports leave connections to others and end in time; a bulk insert is all or none."""

import asyncio
import enum
from contextlib import AsyncExitStack, suppress
from typing import Any
from uuid import uuid4

import pytest
from database import SLOW
from httpx2 import AsyncClient
from shop.db import Csv, Database, bulk_insert, csv_lines, export, open_database
from shop.db.errors import classify
from shop.models import Order
from shop.settings import Settings
from sqlalchemy import JSON, Enum, insert, literal, select, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.util import await_only as await_


async def test_exports_leave_most_of_the_pool_to_others(settings: Settings) -> None:
    async with open_database(settings) as database, AsyncExitStack() as all_exports:
        for _ in range(settings.exports_at_once):
            await all_exports.enter_async_context(export(database))
        brief = {"database_acquire_timeout_seconds": 0.1}
        database.settings = settings.model_copy(update=brief)
        one_more = asyncio.create_task(export(database).__aenter__())

        async with database.read() as session:
            assert await session.scalar(select(1)) == 1
        with pytest.raises(PoolTimeoutError, match="exports"):
            await one_more


@pytest.mark.parametrize("slow", ["reader", "database"])
async def test_export_that_takes_too_long_ends_and_frees_its_place(
    settings: Settings, slow: str
) -> None:
    limits = {"database_export_timeout_seconds": 0.2, "database_pool_size": 4}
    async with open_database(settings.model_copy(update=limits)) as database:
        for _ in range(2):  # there is one place
            with pytest.raises(Exception) as caught:  # noqa: PT011, PT012
                async with export(database) as connection:
                    if slow == "database":
                        await connection.stream(text(SLOW))
                    await asyncio.sleep(60)
            assert classify(caught.value) == "timeout"


async def test_export_refuses_to_write(database: Database) -> None:
    """On MySQL and SQLite it would commit at once."""
    for sql in ("INSERT INTO orders (id) VALUES (1)", "SELECT 1; DELETE FROM orders"):
        for execute in ("execute", "stream", "exec_driver_sql"):
            statement: Any = sql if execute == "exec_driver_sql" else text(sql)
            async with export(database) as connection:
                with pytest.raises(InvalidRequestError, match="use a Write"):
                    await getattr(connection, execute)(statement)
    async with export(database) as connection:
        await connection.stream(select(Order.id))


async def test_bulk_insert_in_which_a_statement_has_failed_inserts_no_row(
    client: AsyncClient, database: Database
) -> None:
    order = {"id": uuid4(), "customer": "ada"}

    async def swallow() -> None:
        async with bulk_insert(database) as connection:
            await connection.execute(insert(Order), [order])
            with suppress(IntegrityError):
                await connection.execute(insert(Order), [order])

    with pytest.raises(InvalidRequestError):
        await swallow()

    assert (await client.get("/orders")).json()["items"] == []


async def test_commit_of_a_bulk_insert_that_is_interrupted_is_counted(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task whose time is up then says that its outcome is unknown."""
    order = {"id": uuid4(), "customer": "ada"}
    async with open_database(settings) as database:
        commits, is_cancelled = asyncio.Event(), asyncio.Event()

        def commit_late(_: object) -> None:
            commits.set()
            await_(is_cancelled.wait())

        async def insert_order() -> None:
            async with bulk_insert(database) as connection:
                await connection.execute(insert(Order), [order])

        monkeypatch.setattr(database.engine.dialect, "do_commit", commit_late)
        task = asyncio.create_task(insert_order())
        await commits.wait()
        task.cancel()
        await asyncio.wait({task})

        assert task.cancelled()
        assert database.commits.interrupted == 1


class Color(enum.Enum):
    RED = "red"


async def test_csv_has_the_values_that_json_has(database: Database) -> None:
    query = select(
        literal("=1+1").label("total, net"),
        literal(Color.RED, Enum(Color, native_enum=False)).label("color"),
        literal({"a": None}, JSON).label("facts"),
    )
    async with export(database) as connection:
        rows = await connection.stream(query)
        lines = [line async for line in csv_lines(rows)]
    assert lines == ['"total, net",color,facts\r\n', '=1+1,red,"{""a"": null}"\r\n']


async def test_file_of_csv_has_no_formula_and_any_name(database: Database) -> None:
    """A spreadsheet would execute what a customer has written."""
    async with export(database) as connection:
        answer = Csv(await connection.stream(select(literal("=1+1"))), 'ł"; x=y.csv')
        lines = [line async for line in answer.body_iterator]

    assert lines[1:] == ["'=1+1\r\n"]
    name = "utf-8''%C5%82%22%3B%20x%3Dy.csv"
    assert answer.headers["Content-Disposition"] == f"attachment; filename*={name}"
