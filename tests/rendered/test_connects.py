"""Connects that fail, are cancelled, or lead elsewhere, and what counts as one."""

import asyncio
import sqlite3
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from prometheus_client import REGISTRY
from shop import main
from shop.db import Database, open_database
from shop.db.config.backend import DIALECT, DRIVER
from shop.db.engine import driver
from shop.db.engine.create import create_engine
from shop.settings import Settings
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only as await_

hosts: Any = None
if find_spec("shop.db.replicas"):
    hosts = import_module("shop.db.replicas.hosts")


def only(applies: bool) -> Any:
    """A test of other renderings is none here."""
    return lambda test: test if applies else None


needs_sqlite = only(DRIVER == "aiosqlite")
needs_mysql = only(DIALECT == "mysql")
needs_server = only(DRIVER != "aiosqlite")
needs_loop_of_hosts = only(hasattr(hosts, "fetch_one"))
needs_hosts_of_libpq = only(hosts is not None and not hasattr(hosts, "fetch_one"))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@needs_sqlite
async def test_file_of_a_cancelled_connect_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    has_begun, is_cancelled = Event(), Event()
    connect = sqlite3.connect

    class Recorded(sqlite3.Connection):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True
            super().close()

    def connect_late(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        has_begun.set()
        is_cancelled.wait(10)
        opened.append(connect(*args, factory=Recorded, **kwargs))
        return opened[-1]  # type: ignore[no-any-return]

    engine = create_engine(settings.database_path, settings.limits)
    monkeypatch.setattr(sqlite3, "connect", connect_late)
    caller = asyncio.ensure_future(engine.connect().start())
    await until(has_begun.is_set)
    caller.cancel()
    await asyncio.wait({caller})
    is_cancelled.set()

    await until(lambda: opened and opened[0].is_closed)
    await engine.dispose()


@needs_mysql
async def test_connection_whose_setup_fails_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    nonsense = {"statements": ("NONSENSE",)}
    monkeypatch.setattr(driver, "session_options", lambda _: nonsense)
    engine = create_engine(settings.server, settings.limits)
    before = open_files()
    with pytest.raises(DBAPIError):
        await engine.connect()

    await until(lambda: open_files() == before)
    await engine.dispose()


@needs_loop_of_hosts
async def test_connection_that_is_not_taken_is_closed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several hosts: the caller is cancelled while a server says what it is."""

    def cancel(*_: Any) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr(hosts, "fetch_one", cancel)
    several = replace(settings.server, others=(settings.server,))
    engine = create_engine(several, settings.limits, settings.hooks)
    before = open_files()
    with pytest.raises(asyncio.CancelledError):
        await engine.connect()

    await until(lambda: open_files() == before)
    await engine.dispose()


@needs_hosts_of_libpq
async def test_hosts_take_turns_when_connects_fail_at_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that fail at one host are one reason to try the other one first."""
    other = replace(settings.server, host="localhost")
    several = replace(settings.server, others=(other,))
    engine = create_engine(several, settings.limits, settings.hooks)
    tried, two = [], asyncio.Barrier(2)

    def fail(*_: Any, **where: Any) -> None:
        tried.append(where["host"].split(",")[0])
        if len(tried) <= 2:
            await_(two.wait())
        raise engine.dialect.loaded_dbapi.OperationalError("refused")

    monkeypatch.setattr(engine.dialect, "connect", fail)
    await asyncio.gather(engine.connect(), engine.connect(), return_exceptions=True)
    await asyncio.gather(engine.connect(), return_exceptions=True)

    assert tried == [several.host, several.host, "localhost"]
    await engine.dispose()


async def test_worker_that_has_served_is_ready_without_its_database(
    settings: Settings, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of a request has reached the database, and no probe."""

    async def fail(_: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(Database, "ping", fail)
    async with serve(main.create_app(settings)) as client:
        before = await client.get("/readyz")
        await client.get("/orders")
        after = await client.get("/readyz")

    assert (before.status_code, after.status_code) == (503, 200)
    assert after.json()["database"] == "failing"


# A write that is rejected as by a server that has become a replica.
REJECTED = {
    "postgresql": "CREATE TABLE nowhere (id int)",
    "mysql": "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290,"
    " MESSAGE_TEXT = 'running with the --read-only option'",
}


@needs_server
async def test_rejected_write_counts_as_a_move(settings: Settings) -> None:
    def count() -> float:
        labels = {"pool": "primary", "reason": "moved"}
        name = "database_pool_connections_invalidated_total"
        return REGISTRY.get_sample_value(name, labels) or 0

    before = count()
    async with open_database(settings) as database:
        if DIALECT == "postgresql":
            async with database.engine.connect() as connection:
                await connection.execute(
                    text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
                )
        with pytest.raises(DBAPIError):
            async with database.write() as session:
                await session.execute(text(REJECTED[DIALECT]))

    assert count() == before + 1
