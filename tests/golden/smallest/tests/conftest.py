"""A migrated database for the session, and the service on it, over HTTP."""

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
from database import QUIET, UNREACHABLE, scratch_database
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from smallest import main
from smallest.db import Base, Database, open_database
from smallest.db.engine.create import create_engine
from smallest.features import ServiceSettings
from smallest.settings import Settings

VARIABLES = {field.upper() for field in ServiceSettings.model_fields}
Serve = Callable[[FastAPI], AbstractAsyncContextManager[AsyncClient]]


def load(**values: Any) -> Settings:
    """A setting that is missing or wrong ends the tests with one sentence."""
    try:
        return Settings.load(**values)
    except SystemExit as error:
        pytest.exit(f"{error} Write it to .env, which make test reads.", returncode=1)


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
        yield load()


@pytest.fixture
def unreachable(settings: Settings) -> Settings:
    return settings.model_copy(update=UNREACHABLE)


@pytest.fixture(scope="session")
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(settings) as database:
        yield database


@pytest.fixture
async def app(settings: Settings, database: Database) -> AsyncIterator[FastAPI]:
    """Empties every table afterwards: what a request commits is really committed."""
    yield main.create_app(settings)
    async with database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            await session.execute(table.delete())


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
