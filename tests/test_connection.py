"""How a rendered service connects: encrypted, kept alive, and true when it is lost."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

from tests import servers
from tests.servers import PostgreSQL
from tests.service import PROGRAMS, Service

pytestmark = pytest.mark.boot


def test_lost_connection_is_called_what_it_is(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    variables = database("asyncpg") | {"DATABASE_CLIENT_TIMEOUT_SECONDS": "0.5"}
    done = service("asyncpg").program("lost", **variables)

    assert done.stdout.split() == ["outcome-unknown", "unavailable", "unavailable"]


def test_readiness_does_not_wait_for_a_silent_database(
    service: Callable[[str], Service],
) -> None:
    """It accepts and says nothing: the answer comes before the 2 s of a connect."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/shop"
        shop = service("asyncpg")
        with shop.running(ready="/livez", DATABASE_URL=url) as running:
            answer = running.client.get("/readyz")

    assert (answer.status_code, answer.json()["database"]) == (503, "timeout")


def test_wrong_password_is_told_in_the_log_without_the_password(
    service: Callable[[str], Service], server: PostgreSQL
) -> None:
    shop = service("asyncpg")
    url = server.url.replace("postgres@", "nobody:hunter2@")
    with shop.running(ready="/livez", DATABASE_URL=url) as running:
        answer = running.client.get("/readyz")
        log = running.log.read_text()

    assert (answer.status_code, answer.json()["database"]) == (503, "unavailable")
    assert 'the database is unavailable: role \\"nobody\\" does not exist' in log
    assert "hunter2" not in log + answer.text


def test_idle_connections_are_kept_alive(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    done = service("asyncpg").program("kept_alive", **database("asyncpg"))

    assert done.stdout == "1 60 10 3 10000\n", done.stderr


def test_misuse_of_a_read_session_does_not_type_check(
    service: Callable[[str], Service],
) -> None:
    program = PROGRAMS / "misuse.py"
    done = service("asyncpg").command("mypy", "--strict", str(program))

    lines = enumerate(program.read_text().splitlines(), 1)
    wrong = {number for number, line in lines if line.endswith("# wrong")}
    assert {int(n) for n in re.findall(r":(\d+): error", done.stdout)} == wrong


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
    done = shop.program("ping", DATABASE_URL=url)
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
