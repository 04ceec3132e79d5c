"""Every class of rendering: its own tests, then the service under gunicorn."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import httpx
import pytest
import trustme

from tests import servers
from tests.servers import PostgreSQL
from tests.service import Service, conversation

pytestmark = pytest.mark.boot

DRIVERS = ("asyncpg", "aiosqlite")
CONVERSATION = Path(__file__).parent / "golden" / "conversation.json"
# A module around the service whose import uses the database, as preload_app has it.
PRELOADED = """
import asyncio

from {package} import main
from {package}.db.engine import create_engine
from {package}.settings import Settings

engine = create_engine(Settings.load())


async def query() -> int:
    async with engine.connect() as connection:
        return (await connection.exec_driver_sql("SELECT 1")).scalar()


asyncio.run(query())


def create_app():
    app = main.create_app()
    app.add_api_route("/probe", query)
    return app
"""
LOAD = """
import os

from {package}.settings import Settings

for case in {cases}:
    os.environ.update(case)
    try:
        Settings.load()
    except SystemExit as stop:
        print(stop)
    for name in case:
        del os.environ[name]
"""
# A session whose server process is ended: before COMMIT, and before a statement.
LOST = """
import asyncio

from sqlalchemy import select, func

from {package}.db.faults import classify
from {package}.db.session import open_database
from {package}.settings import Settings


async def lose(database, *, statement):
    try:
        async with database.write() as session, database.write() as killer:
            backend = await session.scalar(select(func.pg_backend_pid()))
            await killer.execute(select(func.pg_terminate_backend(backend, 5000)))
            if statement:
                await session.scalar(select(1))
    except Exception as error:
        return classify(error)


async def main():
    async with open_database(Settings.load()) as database:
        print(
            await lose(database, statement=False), await lose(database, statement=True)
        )


asyncio.run(main())
"""
KEPT_ALIVE = """
import asyncio
import socket as s

from {package}.db.engine import create_engine
from {package}.settings import Settings


async def main():
    engine = create_engine(Settings.load())
    async with engine.connect() as connection:
        raw = await connection.get_raw_connection()
        tcp = raw.driver_connection._transport.get_extra_info("socket")
        options = (s.TCP_KEEPIDLE, s.TCP_KEEPINTVL, s.TCP_KEEPCNT, s.TCP_USER_TIMEOUT)
        print(
            tcp.getsockopt(s.SOL_SOCKET, s.SO_KEEPALIVE),
            *(tcp.getsockopt(s.IPPROTO_TCP, option) for option in options),
        )
    await engine.dispose()


asyncio.run(main())
"""
MISUSE = """
from sqlalchemy import select, update

from {package}.db.session import ReadSession, WriteSession
from {package}.models import Order


async def reads(session: ReadSession) -> None:
    await session.scalars(select(Order))
    session.add(Order())  # wrong
    await session.execute(update(Order))  # wrong
    await writes(session)  # wrong


async def writes(session: WriteSession) -> None:
    session.add(Order())
    await session.execute(update(Order))
    await reads(session)
"""
PING = """
import asyncio

from {package}.db.session import open_database
from {package}.settings import Settings


async def ping():
    async with open_database(Settings.load()) as database:
        await database.ping()


asyncio.run(ping())
"""


@pytest.fixture
def database(server: PostgreSQL, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """The variables of an empty database for the driver, over TLS where it can be."""

    def variables(driver: str) -> dict[str, str]:
        if driver == "aiosqlite":
            return {"DATABASE_PATH": str(tmp_path / "shop.sqlite3")}
        name = f"db_{tmp_path.name.lower()}"
        execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        execute(server, f'CREATE DATABASE "{name}"')
        return {"DATABASE_URL": server.verified.replace("/postgres?", f"/{name}?")}

    return variables


def execute(server: PostgreSQL, statement: str) -> list[Any]:
    async def fetch() -> list[Any]:
        connection = await asyncpg.connect(server.url)
        try:
            return list(await connection.fetch(statement))
        finally:
            await connection.close()

    return asyncio.run(fetch())


def sessions(server: PostgreSQL, service: Service) -> list[Any]:
    return execute(
        server,
        "SELECT ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"  # noqa: S608
        f" WHERE application_name = '{service.package}'",
    )


@pytest.mark.parametrize("driver", DRIVERS)
def test_own_tests_pass(service: Callable[[str], Service], driver: str) -> None:
    output = service(driver).make("test")

    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


@pytest.mark.parametrize("driver", DRIVERS)
def test_service_answers_and_stops_cleanly(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    server: PostgreSQL,
    driver: str,
) -> None:
    shop, variables = service(driver), database(driver)
    shop.make("migrate", **variables)
    with shop.running(**variables) as running:
        answers = conversation(running.client)
        open_sessions = sessions(server, shop)
        code = running.stop()

    # On every driver the same, to the letter.
    assert answers == json.loads(CONVERSATION.read_text())
    assert code == 0
    for line in running.log.read_text().splitlines():
        assert json.loads(line)["levelname"] in ("INFO", "WARNING"), line
    if driver == "asyncpg":
        assert 1 <= len(open_sessions) <= budget(shop)
        assert all(row["ssl"] for row in open_sessions)
        assert sessions(server, shop) == []


def budget(shop: Service) -> int:
    """What all workers of one instance may open."""
    numbers = "WORKERS * (POOL_SIZE + MAX_OVERFLOW)"
    program = f"from {shop.package}.db.budget import *; print({numbers})"
    return int(shop.command("python", "-c", program).stdout)


@pytest.mark.parametrize("driver", DRIVERS)
def test_preloaded_master_that_used_the_database_spoils_no_worker(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    assert preloaded(service(driver), database(driver)) == [200] * 24


def test_without_the_hook_a_preloaded_master_does_spoil_them(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("asyncpg")
    hook = "    forget_connections()\n"
    text = (shop.folder / "gunicorn.conf.py").read_text()
    assert hook in text
    config = shop.folder / "without_hook.py"
    config.write_text(text.replace(hook, "    pass\n"))

    statuses = preloaded(shop, database("asyncpg"), f"--config={config}")

    assert statuses != [200] * 24


def preloaded(shop: Service, variables: dict[str, str], *options: str) -> list[int]:
    module = shop.folder / "preloaded.py"
    module.write_text(PRELOADED.format(package=shop.package))
    arguments = ("--preload", *options, "preloaded:create_app()")
    with shop.running(*arguments, ready="/livez", **variables) as running:

        def ask(_: int) -> int:
            # A connection of its own, so that both workers get some.
            answer = httpx.get(f"{running.client.base_url}/probe", timeout=30)
            return answer.status_code

        with ThreadPoolExecutor(8) as pool:
            return list(pool.map(ask, range(24)))


WRONG = {
    "asyncpg": [
        ({}, "DATABASE_HOST is missing: set DATABASE_URL, or DATABASE_HOST,"),
        (
            {"DATABASE_URL": "postgresql+psycopg2://u:hunter2@h/d"},
            "DATABASE_URL asks for postgresql+psycopg2, but this service speaks asyncpg"
            ": write postgresql+asyncpg:// or postgresql://.",
        ),
        (
            {"DATABASE_URL": "mysql://u:hunter2@h/d"},
            "DATABASE_URL asks for mysql, but this service speaks asyncpg",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL: write postgresql://"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h:port/d"},
            "DATABASE_URL is not a URL",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d?ssl=on"},
            "DATABASE_URL has the parameter ssl, which is not understood: remove it"
            " (sslmode and sslrootcert are known).",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_USER": "v"},
            "DATABASE_URL and DATABASE_USER say the same: remove one of them.",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_SSLMODE": "maybe"},
            "DATABASE_SSLMODE: Input should be 'disable', 'require', 'verify-ca' or",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_POOL_SIZE": "0"},
            "DATABASE_POOL_SIZE: Input should be greater than 0.",
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hunter2@h/d",
                "DATABASE_MAX_OVERFLOW": "-1",
            },
            "DATABASE_MAX_OVERFLOW: Input should be greater than or equal to 0.",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d?sslrootcert=/no/ca.pem"},
            "DATABASE_SSLROOTCERT: Path does not point to a file.",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "LOG_LEVEL": "LOUD"},
            "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
        ),
    ],
    "aiosqlite": [
        (
            {"DATABASE_URL": "sqlite+pysqlite:///hunter2"},
            "DATABASE_URL asks for sqlite+pysqlite, but this service speaks aiosqlite",
        ),
        (
            {"DATABASE_URL": "sqlite:///:memory:"},
            "DATABASE_URL must end in the path of a file: write sqlite:///path.",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL"),
        (
            {"DATABASE_URL": "sqlite:///a", "DATABASE_PATH": "b"},
            "DATABASE_URL and DATABASE_PATH say the same: remove one of them.",
        ),
    ],
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_wrong_environment_is_told_in_a_sentence(
    service: Callable[[str], Service], driver: str
) -> None:
    shop = service(driver)
    variables = [case for case, _ in WRONG[driver]]
    program = LOAD.format(package=shop.package, cases=variables)
    done = shop.command("python", "-c", program)

    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    said = done.stdout.splitlines()
    for (_, sentence), line in zip(WRONG[driver], said, strict=True):
        assert line.startswith(sentence)


@pytest.mark.parametrize("command", ["gunicorn", "alembic upgrade head"])
def test_wrong_environment_stops_a_command_in_one_line(
    service: Callable[[str], Service], command: str
) -> None:
    variables, sentence = WRONG["asyncpg"][1]
    done = service("asyncpg").command(*command.split(), **variables)

    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_connection_lost_before_commit_has_an_unknown_outcome(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("asyncpg")
    program = LOST.format(package=shop.package)
    done = shop.command("python", "-c", program, **database("asyncpg"))

    assert done.stdout == "outcome-unknown unavailable\n", done.stderr


def test_idle_connections_are_kept_alive(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("asyncpg")
    program = KEPT_ALIVE.format(package=shop.package)
    done = shop.command("python", "-c", program, **database("asyncpg"))

    assert done.stdout == "1 60 10 3 10000\n", done.stderr


def test_misuse_of_a_read_session_does_not_type_check(
    service: Callable[[str], Service], tmp_path: Path
) -> None:
    shop = service("asyncpg")
    (tmp_path / "misuse.py").write_text(MISUSE.format(package=shop.package))
    done = shop.command("mypy", "--strict", str(tmp_path / "misuse.py"))

    wrong = {
        number
        for number, line in enumerate(MISUSE.splitlines(), 1)
        if line.endswith("# wrong")
    }
    assert {int(n) for n in re.findall(r":(\d+): error", done.stdout)} == wrong


def test_migration_of_an_unreachable_database_fails_in_one_line(
    service: Callable[[str], Service],
) -> None:
    url = "postgresql://postgres:hunter2@127.0.0.1:1/shop"
    done = service("asyncpg").command("alembic", "upgrade", "head", DATABASE_URL=url)

    assert done.returncode == 1
    assert done.stderr.startswith("No migration: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


@pytest.fixture(scope="session")
def plain() -> Iterator[str]:
    """A server that knows no TLS."""
    with (
        TemporaryDirectory() as folder,
        servers.launcher.started(servers.binaries(), Path(folder)) as url,
    ):
        yield url


def ping(shop: Service, url: str) -> str:
    """Connect as the service does: "connected", or what is printed instead."""
    program = PING.format(package=shop.package)
    done = shop.command("python", "-c", program, DATABASE_URL=url)
    return done.stderr if done.returncode else "connected"


def test_encryption_is_what_was_asked_for_or_an_error(
    service: Callable[[str], Service], server: PostgreSQL, plain: str, tmp_path: Path
) -> None:
    shop = service("asyncpg")
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    by_address, by_name = server.url, server.url.replace("127.0.0.1", "localhost")
    outcomes = {
        "full": ping(shop, f"{by_name}?sslmode=verify-full&sslrootcert={server.ca}"),
        "ca": ping(shop, f"{by_address}?sslmode=verify-ca&sslrootcert={server.ca}"),
        "require": ping(shop, f"{by_address}?sslmode=require"),
        "loopback": ping(shop, by_address),
        "wrong name": ping(
            shop, f"{by_address}?sslmode=verify-full&sslrootcert={server.ca}"
        ),
        "wrong ca": ping(shop, f"{by_name}?sslmode=verify-full&sslrootcert={other}"),
        "unknown ca": ping(shop, f"{by_name}?sslmode=verify-ca"),
        "no encryption": ping(shop, f"{plain}?sslmode=require"),
    }

    accepted = {name for name, text in outcomes.items() if text == "connected"}
    assert accepted == {"full", "ca", "require", "loopback"}
    assert "IP address mismatch" in outcomes["wrong name"]
    assert "CERTIFICATE_VERIFY_FAILED" in outcomes["wrong ca"]
    assert "CERTIFICATE_VERIFY_FAILED" in outcomes["unknown ca"]
    assert "rejected SSL upgrade" in outcomes["no encryption"]
