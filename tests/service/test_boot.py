"""The plain service of each driver: its own tests, then under gunicorn."""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from sqlalchemy import make_url

from tests.support import servers
from tests.support.rendering import ROOT, Answers
from tests.support.servers import Server
from tests.support.service import (
    NO_TLS,
    PROGRAMS,
    Service,
    conversation,
    level,
    wait_until,
)

pytestmark = pytest.mark.boot

# Status, and the worker or the error.
Found = set[tuple[int, str]]

DRIVERS = servers.DRIVERS
CONVERSATION = ROOT / "tests" / "golden" / "conversation.json"
NEW_MODEL = """

class Parcel(Base):
    __tablename__ = "parcels"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    sent_at: Mapped[datetime]
"""


# test_classes.py runs the tests on Python 3.11.
NEWER = list(itertools.product(DRIVERS, ("3.12", "3.13")))
# Of all drivers each once at each run of the tests.
ALWAYS = {
    ("asyncpg", "3.13"),
    ("psycopg", "3.12"),
    ("aiomysql", "3.13"),
    ("asyncmy", "3.12"),
    ("aiosqlite", "3.13"),
}


@pytest.mark.parametrize(
    ("driver", "python"),
    [
        pytest.param(*pair, marks=() if pair in ALWAYS else pytest.mark.weekly)
        for pair in NEWER
    ],
)
def test_own_tests_pass(
    service: Callable[[str], Service], tmp_path: Path, driver: str, python: str
) -> None:
    shop = service(driver)
    # Without what another Python has installed and compiled.
    left = shutil.ignore_patterns(".venv", "__pycache__", "*.log", "tests-*")
    newer = Service(Path(shutil.copytree(shop.folder, tmp_path / "shop", ignore=left)))
    # One of pyenv's, which uv does not look for; else one that uv finds or fetches.
    versions = Path.home() / ".pyenv" / "versions"
    found = [str(path) for path in versions.glob(f"{python}.*/bin/python")]
    variables = {"UV_PYTHON": max(found, default=python)}
    output = newer.make("test", **variables)

    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output
    version = newer.command("uv", "run", "python", "--version", **variables)
    assert version.stdout.startswith(f"Python {python}.")


def test_own_tests_start_the_first_server_on_the_path(
    service: Callable[[str], Service],
) -> None:
    """MySQL, on a machine that has MariaDB as well."""
    program = str(PROGRAMS / "server_version.py")
    with TemporaryDirectory() as folder:
        path = servers.mysql_program(Path(folder)).parent
        done = service("aiomysql").command(
            *("python", "tests/database.py", "python", program),
            PATH=f"{path}:{os.environ['PATH']}",
        )

    assert done.returncode == 0, done.stderr
    assert re.match(r"\d+\.\d+", done.stdout)
    assert "MariaDB" not in done.stdout


@pytest.mark.parametrize(
    ("driver", "server"), [*servers.NETWORKED_ON, ("aiosqlite", "")]
)
def test_service_answers_and_stops_cleanly(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    server_of: Callable[..., Server],
    driver: str,
    server: str,
) -> None:
    shop, variables = service(driver), database(driver, server)
    shop.make("migrate", **variables)

    def sessions() -> list[bool]:
        if "DATABASE_URL" not in variables:
            return []
        name = make_url(variables["DATABASE_URL"]).database
        return server_of(driver, server).sessions(str(name))

    with shop.running(command=shop.start_command, **variables) as running:
        answers = conversation(running.client)
        open_sessions = sessions()
        code = running.stop()

    # The same on every driver.
    assert answers == json.loads(CONVERSATION.read_text())
    assert code == 0
    log = running.log.read_text()
    assert "canary" not in log, "data of customers do not belong there"
    for line in log.splitlines():
        assert level(line) in ("INFO", "WARNING"), line
    if "DATABASE_URL" in variables:
        assert 1 <= len(open_sessions) <= budget(shop)
        assert all(open_sessions), "each is encrypted"
        wait_until(lambda: sessions() == [])


def budget(shop: Service) -> int:
    """What all workers of one instance may open."""
    numbers = "WORKERS * (POOL_SIZE + MAX_OVERFLOW)"
    program = f"from {shop.package}.db.budget import *; print({numbers})"
    return int(shop.command("python", "-c", program).stdout)


@pytest.mark.parametrize("driver", DRIVERS)
def test_preloaded_master_that_used_the_database_breaks_no_worker(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    def both_workers(found: Found) -> bool:
        return len(found) > 1

    found = preloaded(service(driver), database(driver), until=both_workers)

    assert {status for status, _ in found} == {200}


def test_without_the_hook_a_preloaded_master_breaks_workers(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("asyncpg")
    hook = "    drop_inherited_connections()\n"
    text = (shop.folder / "gunicorn.conf.py").read_text()
    assert hook in text
    config = shop.folder / "without_hook.py"
    config.write_text(text.replace(hook, "    pass\n"))

    def broken(found: Found) -> bool:
        return {status for status, _ in found} != {200}

    preloaded(shop, database("asyncpg"), f"--config={config}", until=broken)


def preloaded(
    shop: Service,
    variables: dict[str, str],
    *options: str,
    until: Callable[[Found], bool],
) -> Found:
    """Ask 24 times at once, and again while the second worker is still to come."""
    arguments = (f"--pythonpath={PROGRAMS}", "--preload", *options)
    found: Found = set()
    with shop.running(
        *arguments,
        "service_with_preloaded_engine:create_app()",
        ready="/livez",
        **variables,
    ) as running:

        def ask(_: int) -> tuple[int, str]:
            # A connection of its own, so that both workers get some.
            answer = httpx.get(
                f"{running.client.base_url}/probe", timeout=30, verify=NO_TLS
            )
            return answer.status_code, answer.text

        def ask_all() -> bool:
            with ThreadPoolExecutor(8) as pool:
                found.update(pool.map(ask, range(24)))
            return until(found)

        wait_until(ask_all, seconds=60)
    return found


@pytest.mark.parametrize("bound", ['"timeout_graceful_shutdown": 1,', ""])
def test_stop_waits_for_an_endless_answer_no_longer_than_its_bound(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    bound: str,
) -> None:
    """With 1 s in place of 20 s the service ends; without a bound it must be killed."""
    shop = service("asyncpg")
    text = (shop.folder / "gunicorn.conf.py").read_text()
    assert text.count('"timeout_graceful_shutdown": 20,') == 1
    config = tmp_path / "impatient.py"
    config.write_text(text.replace('"timeout_graceful_shutdown": 20,', bound))
    arguments = (f"--pythonpath={PROGRAMS}", f"--config={config}")
    with (
        shop.running(
            *arguments,
            "service_with_endless_answer:create_app()",
            **database("asyncpg"),
        ) as running,
        running.client.stream("GET", "/endless") as answer,
    ):
        chunks = answer.iter_text()  # held: without it the client would hang up
        assert next(chunks).startswith("on")
        running.wait_for_log("Application startup complete", times=2)
        running.process.send_signal(signal.SIGTERM)
        if not bound:
            with pytest.raises(subprocess.TimeoutExpired):
                running.process.wait(timeout=8)
            return
        assert running.process.wait(timeout=15) == 0
    assert "WORKER TIMEOUT" not in running.log.read_text()
    assert running.log.read_text().count("Application shutdown complete") == 2


def test_new_migration_is_dated_and_well_formed(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
) -> None:
    # Rendered for this test alone, since its files change.
    shop = rendered({"driver": "aiosqlite", "description": "A service that grows"})
    variables = database("aiosqlite")
    versions = shop.folder / "migrations" / "versions"
    before = set(versions.iterdir())
    shop.make("migrate", **variables)
    model = shop.folder / "src" / shop.package / "models.py"
    text = model.read_text()
    try:
        model.write_text(text + NEW_MODEL)
        command = ("alembic", "revision", "--autogenerate", "-m", "Add the parcels")
        done = shop.command(*command, **variables)
        assert done.returncode == 0, done.stderr
        (new,) = {path for path in versions.iterdir() if path.suffix == ".py"} - before
        shop.make("migrate", **variables)
        shop.make("lint")
        written = new.read_text()
        new.unlink()
    finally:
        model.write_text(text)

    assert re.fullmatch(r"\d{4}-\d\d-\d\d_[0-9a-f]{12}_add_the_parcels\.py", new.name)
    assert 'sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False)' in written
    assert 'op.f("pk_parcels")' in written
