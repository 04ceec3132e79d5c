"""Logins by a token: fetched once, and in no log and no message."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.fake_metadata_server import TOKEN, metadata
from tests.support.rendering import Answers, environment
from tests.support.servers import DRIVERS, NETWORKED, Server
from tests.support.service import PATIENT, PROGRAMS, Service, conversation

pytestmark = pytest.mark.boot

REJECTED = {
    "postgresql": 'password authentication failed for user "bearer"',
    "mysql": "Access denied for user 'bearer'",
}
AWS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_REGION": "eu-central-1",
}
NO_CREDENTIALS = {
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nowhere",
    "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    "AWS_REGION": "eu-central-1",
}
# Where a token comes over HTTP.
HTTP = [("gcp_cloud_sql", "psycopg"), ("azure", "asyncpg")]
CACHE = "if not token or token.valid_until < monotonic():"

ServiceAt = Callable[[str, str], Service]


@pytest.fixture(scope="session")
def service_at(rendered: Callable[[Answers], Service]) -> ServiceAt:
    def make(cloud: str, driver: str) -> Service:
        return rendered({"driver": driver, "cloud": cloud, "auth": "token"})

    return make


def set_password(server: Server, password: str) -> None:
    """Set the password of the user `bearer`, a superuser."""
    if make_url(server.url).get_backend_name() == "mysql":
        server.execute("CREATE USER IF NOT EXISTS bearer")
        server.execute(f"ALTER USER bearer IDENTIFIED BY '{password}'")
        server.execute("GRANT ALL ON *.* TO bearer")
        return
    if not server.execute("SELECT 1 FROM pg_roles WHERE rolname = 'bearer'"):
        server.execute("CREATE ROLE bearer LOGIN SUPERUSER")
    server.execute(f"ALTER ROLE bearer PASSWORD '{password}'")


def url_of(server: Server, name: str) -> str:
    url = make_url(server.database(name)).set(username="bearer")
    return url.render_as_string(hide_password=False)


class Program:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read_line(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def use(self) -> tuple[str, str, int]:
        """Outcome, reason, and how often the loop was free meanwhile."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        outcome, reason, ticks = json.loads(self.read_line())
        return outcome, reason, ticks


@contextmanager
def login(
    shop: Service, tmp_path: Path, *arguments: str, **variables: str
) -> Iterator[Program]:
    log = tmp_path / "login.log"
    path = f"{shop.folder / '.venv' / 'bin'}"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [f"{path}/python", PROGRAMS / "token_login.py", *arguments],
            cwd=shop.folder,
            env=environment(**variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        ) as process,
    ):
        yield Program(process)
        assert process.stdin
        process.stdin.close()
        assert process.wait(timeout=30) == 0, log.read_text()


@pytest.mark.parametrize("driver", NETWORKED)
def test_token_that_is_signed_here_logs_in_until_the_server_rejects_it(
    service_at: ServiceAt,
    server_of: Callable[[str], Server],
    tmp_path: Path,
    driver: str,
) -> None:
    shop, server = service_at("aws_rds", driver), server_of(driver)
    url = url_of(server, f"login_{driver}")
    with login(shop, tmp_path, "token", DATABASE_URL=url, **AWS) as program:
        token = program.read_line()
        set_password(server, token)
        connected, _, _ = program.use()
        set_password(server, "another")
        rejected, reason, _ = program.use()

    host = f"localhost:{make_url(url).port}"
    assert token.startswith(f"{host}/?Action=connect&DBUser=bearer&X-Amz-Algorithm")
    assert connected == "connected"
    assert rejected == "unavailable"
    assert REJECTED[DRIVERS[driver]["dialect"]] in reason
    assert token not in reason + (tmp_path / "login.log").read_text()


def test_missing_credentials_are_an_unavailable_database_with_a_reason(
    service_at: ServiceAt, server_of: Callable[[str], Server], tmp_path: Path
) -> None:
    url = url_of(server_of("asyncpg"), "login_nobody")
    shop = service_at("aws_rds", "asyncpg")
    with login(shop, tmp_path, "warm", DATABASE_URL=url, **NO_CREDENTIALS) as program:
        outcome, reason, _ = program.use()

    assert outcome == "unavailable"
    assert reason == (
        "cannot connect: no token of AWS IAM: Unable to locate credentials"
    )


@pytest.mark.parametrize(("cloud", "driver"), HTTP)
def test_service_and_its_migrations_log_in_by_a_token_of_the_platform(
    service_at: ServiceAt,
    server_of: Callable[[str], Server],
    cloud: str,
    driver: str,
) -> None:
    shop, server = service_at(cloud, driver), server_of(driver)
    set_password(server, TOKEN)
    with metadata() as platform:
        url = url_of(server, f"login_{cloud}")
        variables = platform.variables | {"DATABASE_URL": url} | PATIENT
        output = shop.make("migrate", **variables)
        asked = platform.asked
        with shop.running(**variables) as running:
            answers = conversation(running.client)
            log = running.log.read_text()

    assert answers[0][0] == 201
    assert asked == 1
    # Each worker once, however many connections it has opened.
    assert 1 <= platform.asked - asked <= 2
    assert TOKEN not in output + log


@pytest.mark.parametrize("place", HTTP)
@pytest.mark.parametrize("is_cached", [True, False])
def test_connections_share_one_token(
    service_at: ServiceAt,
    server_of: Callable[[str], Server],
    tmp_path: Path,
    place: tuple[str, str],
    is_cached: bool,  # noqa: FBT001
) -> None:
    shop, server = service_at(*place), server_of(place[1])
    set_password(server, TOKEN)
    changes = {}
    if not is_cached:
        source = shop.changed(
            tmp_path / "src", "db/config/credentials.py", CACHE, "if True:"
        )
        changes = {"PYTHONPATH": source}
    with metadata() as platform:
        variables = platform.variables | {"DATABASE_URL": url_of(server, "login_one")}
        changes |= PATIENT  # the vendor's library takes its time at first
        with login(shop, tmp_path, **variables, **changes) as program:
            outcomes = [program.use()[0] for _ in range(3)]
            asked = platform.asked

    assert outcomes == ["connected"] * 3
    assert (asked == 1) is is_cached


def test_silent_platform_does_not_block_the_event_loop(
    service_at: ServiceAt, server_of: Callable[[str], Server], tmp_path: Path
) -> None:
    outcome, reason, ticks = on_a_silent_platform(service_at, server_of, tmp_path)

    assert outcome == "unavailable"
    assert reason == "cannot connect: no answer in 2.0 s"
    assert ticks > 10, "of some 200"


def on_a_silent_platform(
    service_at: ServiceAt,
    server_of: Callable[[str], Server],
    tmp_path: Path,
    **variables: str,
) -> tuple[str, str, int]:
    shop, server = service_at("gcp_cloud_sql", "psycopg"), server_of("psycopg")
    url = url_of(server, "login_silent")
    with metadata() as platform:
        platform.is_silent = True
        variables |= platform.variables | {"DATABASE_URL": url}
        with login(shop, tmp_path, **variables) as program:
            return program.use()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"DATABASE_URL": "postgresql://u:hunter2@db.example.com/d"},
            "DATABASE_PASSWORD: tokens of AWS IAM are the password: remove it, also"
            " from the URL.\n",
        ),
        (
            {"DATABASE_URL": "postgresql://u@db.example.com/d?sslmode=disable"},
            "DATABASE_SSLMODE=disable would show the token to the network: use"
            " verify-full.\n",
        ),
    ],
    ids=["password", "no encryption"],
)
def test_settings_that_would_show_a_token_are_rejected(
    service_at: ServiceAt, variables: dict[str, str], sentence: str
) -> None:
    done = service_at("aws_rds", "asyncpg").program("database_ping", **variables)

    assert done.returncode == 1
    assert done.stderr == sentence


def test_loopback_without_encryption_needs_no_token(
    service_at: ServiceAt, server_of: Callable[[str], Server], tmp_path: Path
) -> None:
    """The tests of the service pass without a platform."""
    url = server_of("asyncpg").url
    shop = service_at("aws_rds", "asyncpg")
    with login(shop, tmp_path, DATABASE_URL=url, **NO_CREDENTIALS) as program:
        outcome, _, _ = program.use()

    assert outcome == "connected"
