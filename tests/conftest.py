"""The template as Copier gets it: a clean clone, tagged as the next release."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import plumbum
import pytest

from tests import rendering
from tests.servers import PostgreSQL, postgresql
from tests.service import Service, copy


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith("GIT_"):
                patch.delenv(variable)
        for name, value in rendering.isolate(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
            # Copier runs git by plumbum, which has copied the environment already.
            patch.setitem(plumbum.local.env, name, value)  # type: ignore[arg-type]
        yield


@pytest.fixture(scope="session")
def template(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    return rendering.snapshot(tmp_path_factory.mktemp("template") / "clone")


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSQL]:
    # Not below pytest's own folder, which other users must not enter.
    with TemporaryDirectory() as folder, postgresql(Path(folder)) as server:
        yield server


@pytest.fixture(scope="session")
def service(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Service]:
    """The service on a driver, with its environment installed."""
    made: dict[str, Service] = {}

    def make(driver: str) -> Service:
        if driver not in made:
            folder = tmp_path_factory.mktemp(driver) / "shop"
            made[driver] = copy(template, folder, {"driver": driver})
            made[driver].make("lint")
        return made[driver]

    return make


@pytest.fixture
def database(server: PostgreSQL, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The variables of an empty database for the driver, over TLS where it can be."""

    def variables(driver: str) -> dict[str, str]:
        if driver == "aiosqlite":
            return {"DATABASE_PATH": str(tmp_path / "shop.sqlite3")}
        name = f"db_{tmp_path.name.lower()}"
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        server.execute(f'CREATE DATABASE "{name}"')
        return {"DATABASE_URL": server.verified.replace("/postgres?", f"/{name}?")}

    return variables
