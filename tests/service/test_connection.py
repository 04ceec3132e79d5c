"""Connections of a rendered service: encryption, keep-alive, errors of a login."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
import trustme
from sqlalchemy import make_url

from tests.support import servers
from tests.support.rendering import Answers
from tests.support.servers import Server
from tests.support.service import PATIENT, PROGRAMS, Service, wait_until

pytestmark = pytest.mark.boot

UNPOOLED = """
import asyncio
from sqlalchemy import text
from shop.db.engine.create import create_unpooled_engine
from shop.settings import Settings

async def main():
    settings = Settings.load()
    engine = create_unpooled_engine(settings.server, settings.limits)
    async with engine.connect() as connection:
        await connection.execute(text("SELECT :name FROM nowhere"), {"name": "hunter2"})

asyncio.run(main())
"""

MISUSE = PROGRAMS / "read_session_misuse.py"
DRIVERS = [name for name in servers.DRIVERS if name != "aiosqlite"]
# The message of each driver about an unknown user.
REFUSALS = {
    "asyncpg": r'role \\"nobody\\" does not exist',
    "psycopg": r'.*role \\"nobody\\" does not exist',
    "aiomysql": r".*1045.*Access denied for user 'nobody'",
    "asyncmy": r".*1045.*Access denied for user 'nobody'",
}
TLS_WORDS = {
    "ssl": {"name": "IP address mismatch", "authority": "CERTIFICATE_VERIFY_FAILED"},
    "libpq": {"name": "does not match host name", "authority": "certificate verify"},
}
NOT_OFFERED = {
    "asyncpg": "rejected SSL upgrade",
    "psycopg": "server does not support SSL",
    "aiomysql": "the server offers no encryption",
    "asyncmy": "OperationalError",
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_local_socket_is_an_address(
    service: Callable[[str], Service], server_of: Callable[[str], Server], driver: str
) -> None:
    """In the URL or in DATABASE_HOST; the doctor knows that there is no encryption."""
    server, shop = server_of(driver), service(driver)
    url = make_url(server.url)
    parameter = "host" if server.socket.is_dir() else "unix_socket"
    scheme = url.get_backend_name()
    for place in (
        f"{scheme}://{url.username}@:{url.port}/{url.database}?{parameter}={server.socket}",
        f"{scheme}:///{url.database}?{parameter}={server.socket}&port={url.port}",
        f"{scheme}://{url.username}@{quote(str(server.socket), safe='')}:{url.port}"
        f"/{url.database}",
    ):
        user = {} if "@" in place else {"DATABASE_USER": str(url.username)}
        done = shop.program("database_ping", DATABASE_URL=place, **user)
        assert (place, done.returncode, done.stderr) == (place, 0, "")
    parts = {
        "DATABASE_HOST": str(server.socket),
        "DATABASE_PORT": str(url.port),
        "DATABASE_USER": str(url.username),
        "DATABASE_NAME": str(url.database),
    }
    found = shop.python("-m", "shop.db.doctor", **parts).stdout

    assert re.search(
        r"^ok    encryption  none, on a local socket$", found, re.MULTILINE
    ), found
    assert re.search(r"^ok    sessions ", found, re.MULTILINE), found


@pytest.mark.parametrize("driver", DRIVERS)
def test_readiness_does_not_wait_for_a_silent_database(
    service: Callable[[str], Service], driver: str
) -> None:
    """The server accepts and never answers; readiness does within a connect's 2 s."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dialect = servers.DRIVERS[driver]["dialect"]
        url = f"{dialect}://u@127.0.0.1:{silent.getsockname()[1]}/shop"
        shop = service(driver)
        with shop.running(ready="/livez", DATABASE_URL=url) as running:
            answer = running.client.get("/readyz")

    assert (answer.status_code, answer.json()["database"]) == (503, "timeout")


@pytest.mark.parametrize(("driver", "reason"), REFUSALS.items())
def test_wrong_login_is_logged_without_the_password(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    driver: str,
    reason: str,
) -> None:
    shop = service(driver)
    url = re.sub("//[a-z]+@", "//nobody:hunter2@", server_of(driver).url)
    with shop.running(ready="/livez", DATABASE_URL=url, **PATIENT) as running:
        ask = partial(running.client.get, "/readyz")
        # The first connect of a worker may take longer than a probe waits.
        wait_until(lambda: ask().json()["database"] != "timeout")
        answer = ask()
        log = running.log.read_text()

    assert (answer.status_code, answer.json()["database"]) == (503, "unavailable")
    assert re.search(f"the database is unavailable: {reason}", log)
    assert "hunter2" not in log + answer.text


@pytest.mark.parametrize("driver", DRIVERS)
def test_idle_connections_have_keep_alive(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    done = service(driver).program("keepalive_options", **database(driver))

    assert done.stdout == "1 60 10 3 10000\n", done.stderr


@pytest.mark.parametrize("more", [{}, {"with_replicas": True}], ids=str)
def test_misuse_of_a_read_session_does_not_type_check(
    rendered: Callable[[Answers], Service], more: Answers
) -> None:
    done = rendered({"driver": "asyncpg"} | more).command(
        "mypy", "--strict", str(MISUSE)
    )

    assert {int(n) for n in re.findall(r":(\d+): error", done.stdout)} == wrong_lines()


def test_pyright_infers_the_same_types(
    service: Callable[[str], Service], tmp_path: Path
) -> None:
    """By a build of it that brings its Node.js along."""
    shop = service("asyncpg")
    rules = {"include": [str(MISUSE)], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(rules))
    done = shop.command(
        *("basedpyright", f"--project={tmp_path}", "--outputjson"),
        f"--pythonpath={shop.folder}/.venv/bin/python",
    )

    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    assert {each["range"]["start"]["line"] + 1 for each in errors} == wrong_lines()


def wrong_lines() -> set[int]:
    lines = enumerate(MISUSE.read_text().splitlines(), 1)
    return {number for number, line in lines if line.endswith("# wrong")}


@contextmanager
def plain(dialect: str) -> Iterator[str]:
    """A server without TLS."""
    started, binaries = servers.launchers[dialect].started, servers.binaries(dialect)
    with TemporaryDirectory() as folder, started(binaries, Path(folder)) as url:
        yield url


def ping(shop: Service, url: str) -> str:
    """Connect as the service does: "connected", or the error."""
    done = shop.program("database_ping", DATABASE_URL=url)
    return done.stderr if done.returncode else "connected"


@pytest.mark.parametrize("driver", DRIVERS)
def test_encryption_is_as_configured_or_an_error(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path: Path,
    driver: str,
) -> None:
    shop, server = service(driver), server_of(driver)
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    by_address, by_name = server.url, server.url.replace("127.0.0.1", "localhost")
    with plain(servers.DRIVERS[driver]["dialect"]) as url:
        not_encrypted = ping(shop, f"{url}?sslmode=require")
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
        "no encryption": not_encrypted,
    }

    accepted = {name for name, text in outcomes.items() if text == "connected"}
    assert accepted == {"full", "ca", "require", "loopback"}
    words = TLS_WORDS["libpq" if driver == "psycopg" else "ssl"]
    assert words["name"] in outcomes["wrong name"]
    assert words["authority"] in outcomes["wrong ca"]
    assert words["authority"] in outcomes["unknown ca"]
    assert re.search(NOT_OFFERED[driver], outcomes["no encryption"])


@pytest.mark.parametrize(
    ("driver", "name"), [pair for pair in servers.DRIVERS_ON if pair[1] != "postgresql"]
)
def test_password_is_accepted_with_and_without_encryption(
    service: Callable[[str], Service],
    server_of: Callable[..., Server],
    driver: str,
    name: str,
) -> None:
    """MySQL takes it by an RSA key of its own where the connection is not encrypted."""
    server, user, password = server_of(driver, name), f"user_{driver}", "gehäim €"
    server.execute(f"DROP USER IF EXISTS {user}")
    server.execute(f"CREATE USER {user} IDENTIFIED BY '{password}'")
    server.execute(f"GRANT ALL ON app.* TO {user}")
    url = server.url.replace("root@", f"{user}:{quote(password)}@")

    for sslmode in ("disable", "require"):
        assert ping(service(driver), f"{url}?sslmode={sslmode}") == "connected"


@pytest.mark.parametrize("driver", servers.DRIVERS)
def test_parameters_of_a_migration_are_in_no_message(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    done = service(driver).python("-c", UNPOOLED, **database(driver))

    assert "SQL parameters hidden" in done.stderr
    assert "hunter2" not in done.stderr.split("sqlalchemy.exc")[-1]
