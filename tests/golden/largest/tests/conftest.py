"""A migrated database for the session, and the service on it, over HTTP."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from database import UNREACHABLE, scratch_database
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from largest import main
from largest.db.base import Base
from largest.db.engine import create_engine
from largest.db.session import Database, open_database
from largest.settings import Settings

Serve = Callable[[FastAPI], AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[pytest.MonkeyPatch]:
    """Of the settings in the environment the tests heed DATABASE_URL alone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in {field.upper() for field in Settings.model_fields} & {*os.environ}:
            if name != "DATABASE_URL":
                patch.delenv(name)
        yield patch


@pytest.fixture(scope="session")
def alembic() -> Config:
    return Config(toml_file=Path(__file__).parents[1] / "pyproject.toml")


@pytest.fixture(scope="session")
def scratch() -> Callable[[], AbstractAsyncContextManager[str]]:
    """Make one more empty database, for a test that would disturb the others."""
    return lambda: scratch_database(
        lambda url: create_engine(Settings(database_url=url))
    )


@pytest.fixture(scope="session")
def settings(
    alembic: Config, scratch: Any, environment: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Of a database that only these tests use, with all migrations applied."""
    with scratch() as url:
        environment.setenv("DATABASE_URL", url)
        environment.setenv("LOG_LEVEL", "WARNING")
        command.upgrade(alembic, "head")
        yield Settings.load()


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

            # An unexpected error shall become a 500 as it does in production.
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
