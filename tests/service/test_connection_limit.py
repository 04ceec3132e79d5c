"""A server without a free connection: the answer is 503 until a connection is free."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Never

import asyncpg
import httpx
import pymysql
import pytest
from sqlalchemy import URL, make_url

from tests.support import servers
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

# A checkout takes 3 s at most; the rest is for a busy machine.
ACQUIRE_SECONDS = 4.0
FEW = {"postgresql": "max_connections=20", "mysql": "max-connections=20"}
# Without the connections that are reserved for an administrator.
CLERK = {
    "postgresql": ["CREATE ROLE clerk LOGIN"],
    "mysql": ["CREATE USER clerk", "GRANT ALL ON app.* TO clerk"],
}
TOO_MANY = (asyncpg.TooManyConnectionsError, pymysql.err.OperationalError)
KINDS = {"postgresql": servers.PostgreSQL, "mysql": servers.MariaDB}


@contextmanager
def small(dialect: str) -> Iterator[URL]:
    """A server with few connections, and a user without reserved connections."""
    started, binaries = servers.launchers[dialect].started, servers.binaries(dialect)
    with TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o755)
        with started(binaries, path / "data", FEW[dialect]) as url:
            for statement in CLERK[dialect]:
                KINDS[dialect](url, path).execute(statement)
            yield make_url(url).set(username="clerk")


@contextmanager
def all_taken(url: URL) -> Iterator[None]:
    """Open connections until the server rejects one; close them at the end."""
    with asyncio.Runner() as runner, ExitStack() as opened:

        def connect() -> None:
            if url.get_backend_name() == "mysql":
                connection = pymysql.connect(
                    host=url.host, port=url.port or 0, user=url.username
                )
                opened.callback(connection.close)
            else:
                text = url.render_as_string(hide_password=False)
                other = runner.run(asyncpg.connect(text))
                opened.callback(lambda: runner.run(other.close()))

        with pytest.raises(TOO_MANY, match=r"1040|remaining connection slots"):
            until_rejected(connect)
        yield


def until_rejected(connect: Callable[[], None]) -> Never:
    while True:
        connect()


def ask(client: httpx.Client) -> tuple[int, bool, bool]:
    """Status, whether the answer has Retry-After, whether it was in time."""
    began = time.monotonic()
    answer = client.get("/ask")
    took = time.monotonic() - began
    return answer.status_code, "retry-after" in answer.headers, took < ACQUIRE_SECONDS


@contextmanager
def held(client: httpx.Client) -> Iterator[None]:
    with client.stream("GET", "/held") as answer:
        chunks = answer.iter_text()  # kept: without it the client would hang up
        next(chunks)
        yield


@pytest.mark.parametrize("driver", [d for d in servers.DRIVERS if d != "aiosqlite"])
def test_server_without_a_free_connection_is_503_until_it_has_one(
    service: Callable[[str], Service], driver: str
) -> None:
    served, rejected = (200, False, True), (503, True, True)
    with small(servers.DRIVERS[driver]["dialect"]) as url:
        variables = {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "DATABASE_BUDGET_CHECK": "off",
            "WEB_CONCURRENCY": "1",
        }
        with service(driver).running(
            f"--pythonpath={PROGRAMS}",
            "service_with_query_and_held_routes:create_app()",
            ready="/ask",
            **variables,
        ) as running:
            client = running.client
            with all_taken(url):
                warm = [ask(client) for _ in range(20)]
                with held(client):  # the only connection of the pool
                    none_left = [ask(client) for _ in range(3)]
                    alive = client.get("/livez").status_code
            with held(client):
                recovered = ask(client)

    assert warm == [served] * 20
    assert none_left == [rejected] * 3
    assert alive == 200
    assert recovered == served
