"""A migrated database for the session, and the service on it, over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from database import EMPTY, KEYS_OFF, KEYS_ON, QUIET, UNREACHABLE, scratch_database
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import Connection, Table, inspect, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.schema import sort_tables_and_constraints

from smallest import main
from smallest.db import Base, Database, open_database
from smallest.db.engine.create import create_engine
from smallest.features import ServiceSettings
from smallest.settings import Settings

VARIABLES = {field.upper() for field in ServiceSettings.model_fields}
Serve = Callable[[FastAPI], AbstractAsyncContextManager[AsyncClient]]
# What the migrations have left in each table: as it is stored, and to insert it.
ROWS: dict[Table, tuple[Any, list[dict[str, Any]]]] = {}


def load(**values: Any) -> Settings:
    """A setting that is missing or wrong ends the tests with one sentence."""
    try:
        return Settings.load(**values)
    except SystemExit as error:
        pytest.exit(f"{error} Write it to .env, which make test reads.", returncode=1)


def base_tables(connection: Connection) -> list[Table]:
    """Tables of the models that are no views, parents first."""
    inspector = inspect(connection)
    return [
        table
        for table, _ in sort_tables_and_constraints(Base.metadata.tables.values())
        if table is not None and table.name in inspector.get_table_names(table.schema)
    ]


async def stored(connection: AsyncConnection, table: Table) -> Any:
    """Without types: they may reject what a test has written past them."""
    return (await connection.execute(select(text("*")).select_from(table))).all()


async def note_rows(settings: Settings) -> None:
    async with (
        open_database(settings) as database,
        database.engine.connect() as connection,
    ):
        for table in await connection.run_sync(base_tables):
            columns = [each for each in table.columns if not each.computed]
            rows = (await connection.execute(select(*columns))).all()
            names = [each.key for each in columns]
            values = [dict(zip(names, row, strict=True)) for row in rows]
            ROWS[table] = (await stored(connection, table), values)


async def restore_rows(database: Database) -> None:
    async with database.engine.connect() as connection:
        changed = [
            table
            for table, (rows, _) in ROWS.items()
            if await stored(connection, table) != rows
        ]
        if not changed:
            return
        names = map(connection.dialect.identifier_preparer.format_table, changed)
        for statement in (*KEYS_OFF, *map(EMPTY.format, names)):
            await connection.exec_driver_sql(statement)
        for table, (rows, values) in ROWS.items():
            if rows and await stored(connection, table) != rows:
                await connection.execute(table.insert(), values)
        for statement in KEYS_ON:
            await connection.exec_driver_sql(statement)


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Of the settings in the environment the tests use the URLs alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            if not name.endswith("_URL"):
                patch.delenv(name, raising=False)
        yield patch


@pytest.fixture(scope="session")
def point_to() -> Callable[[pytest.MonkeyPatch, str], None]:
    """Let each DATABASE_..._URL of the environment lead to the database of this URL."""

    def point_to(environment: pytest.MonkeyPatch, url: str) -> None:
        name = make_url(url).database
        for variable in VARIABLES:
            if variable.startswith("DATABASE_") and variable.endswith("_URL"):
                own = make_url(os.environ.get(variable, url)).set(database=name)
                environment.setenv(variable, own.render_as_string(hide_password=False))

    return point_to


@pytest.fixture(scope="session")
def alembic() -> Config:
    return Config(toml_file=Path(__file__).parents[1] / "pyproject.toml")


@pytest.fixture(scope="session")
def scratch() -> Callable[[], AbstractContextManager[str]]:
    """Make one more empty database, for a test that would disturb the others."""

    def connect(url: str) -> AsyncEngine:
        settings = load(database_url=url)
        return create_engine(settings.server, settings.limits)

    return lambda: scratch_database(connect)


@pytest.fixture(scope="session")
def settings(
    alembic: Config, scratch: Any, point_to: Any, environment: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a database that only these tests use, with all migrations applied."""
    with scratch() as url:
        point_to(environment, url)
        for name, value in QUIET.items():
            environment.setenv(name, value)
        command.upgrade(alembic, "head")
        settings = load()
        asyncio.run(note_rows(settings))
        yield settings


@pytest.fixture
def unreachable(settings: Settings) -> Settings:
    return settings.model_copy(update=UNREACHABLE)


@pytest.fixture(scope="session")
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as database:
        yield database


@pytest.fixture(autouse=True)
async def restored(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """What a test commits is really committed: afterwards each table has what the
    migrations have left.
    """
    yield
    if "database" in request.fixturenames:
        await restore_rows(request.getfixturevalue("database"))


@pytest.fixture
def app(settings: Settings, database: Database) -> FastAPI:
    return main.create_app(settings)


@pytest.fixture(scope="session")
def serve() -> Serve:
    @asynccontextmanager
    async def serve(app: FastAPI) -> AsyncIterator[AsyncClient]:
        async with app.router.lifespan_context(app) as state:

            async def with_state(scope: Any, receive: Any, send: Any) -> None:
                await app(scope | {"state": dict(state or {})}, receive, send)

            # An unexpected error becomes a 500, as it does in production.
            transport = ASGITransport(with_state, raise_app_exceptions=False)
            async with AsyncClient(
                transport=transport, base_url="http://test"
            ) as client:
                yield client

    return serve


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> AsyncIterator[AsyncClient]:
    async with serve(app) as client:
        yield client
