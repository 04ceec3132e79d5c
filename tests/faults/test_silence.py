"""A database that falls silent: every wait of the service ends."""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.processes import Process, children
from tests.support.proxy import Proxy
from tests.support.rendering import ROOT
from tests.support.servers import (
    NETWORKED,
    SERVERS,
    Server,
    usual_server,
)
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

# Afterwards all connect at once, on a machine that may be busy.
LIMITS = {
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "3",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "4",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "4",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "5",
}
# A checkout (queue, ping, connect) takes 5 s at most; a statement is cut after 6 where
# it is in flight. The rest is for a busy machine: an unbounded wait never ends.
ACQUIRE_SECONDS = 10.0
USE_SECONDS = 12.0
SOON_SECONDS = 10.0

CANNOT_SERVE = {"unavailable", "busy", "timeout"}
ANSWERS_503 = {f"503 {fault}" for fault in CANNOT_SERVE}

Use = tuple[float, str]  # seconds that it took, and how it ended

# Where a server has written its process id, by dialect.
PID_FILES = {
    "postgresql": "SELECT setting || '/postmaster.pid' AS path FROM pg_settings"
    " WHERE name = 'data_directory'",
    "mysql": "SELECT CONCAT(IF(@@pid_file LIKE '/%', '', @@datadir), @@pid_file)"
    " AS path",
}


class Silence(NamedTuple):
    """A process that can fall silent, and the ways to the server through it."""

    of: Proxy | Process
    plain: str
    encrypted: str
    # A network can also lose the answer to a single COMMIT.
    lose_answer: Callable[[], None] | None = None


@contextmanager
def of_the_network(server: Server) -> Iterator[Silence]:
    urls = [make_url(server.url), make_url(server.verified)]
    with Proxy("127.0.0.1", urls[0].port or 0) as proxy:
        plain, encrypted = (
            url.set(port=proxy.port).render_as_string(hide_password=False)
            for url in urls
        )
        yield Silence(proxy, plain, encrypted, lambda: proxy.drop_after(rb"\bCOMMIT\b"))


@contextmanager
def of_the_server(server: Server) -> Iterator[Silence]:
    (row,) = server.execute(PID_FILES[make_url(server.url).get_backend_name()])
    process = Process(int(Path(row["path"]).read_text().split()[0]))
    try:
        yield Silence(process, server.url, server.verified)
    finally:
        process.heal()


@pytest.mark.parametrize("silence_of", [of_the_network, of_the_server])
@pytest.mark.parametrize("driver", NETWORKED)
def test_silent_database_is_waited_for_no_longer_than_was_promised(
    service: Callable[[str], Service],
    driver: str,
    silence_of: Callable[[Server], AbstractContextManager[Silence]],
) -> None:
    shop = service(driver)
    with (
        TemporaryDirectory() as folder,
        SERVERS[usual_server(driver)](Path(folder)) as server,
        silence_of(server) as silence,
    ):
        found, rows = experience(shop, silence, server.url)

    expected = {
        "10 requests": (ANSWERS_503, ACQUIRE_SECONDS),
        "5 requests": (ANSWERS_503, ACQUIRE_SECONDS),
        "10 reads": (CANNOT_SERVE, ACQUIRE_SECONDS),
        "5 reads": (CANNOT_SERVE, ACQUIRE_SECONDS),
        "statement": (CANNOT_SERVE, USE_SECONDS),
        "cancelled read": ({"cancelled"}, USE_SECONDS),
        "cancelled write": ({"cancelled"}, USE_SECONDS),
        "commit": ({"outcome-unknown"}, USE_SECONDS),
        "commit without an answer": (
            {"outcome-unknown" if silence.lose_answer else "well"},
            USE_SECONDS,
        ),
        # Its own error or that of the connection: the row is not there either way.
        "rollback": ({"rolled back", *CANNOT_SERVE}, USE_SECONDS),
        "10 requests later": ({"200"}, SOON_SECONDS),
        "10 reads later": ({"well"}, SOON_SECONDS),
        "10 reads on new connections": ({"well"}, SOON_SECONDS),
    }
    assert found.keys() == expected.keys()
    summaries = {name: summary(uses) for name, uses in found.items()}
    print(json.dumps(summaries, indent=1))
    wrong = [
        f"{name}: {summaries[name]}"
        for name, (outcomes, limit) in expected.items()
        if any(took > limit or how not in outcomes for took, how in found[name])
    ]
    assert wrong == []
    assert rows == {"without an answer": True, "rolled back": False, "cancelled": False}


def summary(uses: list[Use]) -> str:
    times: dict[str, list[float]] = {}
    for took, how in uses:
        times.setdefault(how, []).append(took)
    return ", ".join(
        f"{len(took)} {how} after {min(took)} to {max(took)} s"
        for how, took in times.items()
    )


def experience(
    shop: Service, silence: Silence, direct: str
) -> tuple[dict[str, list[Use]], dict[str, bool]]:
    """Use the database over HTTP and beside, and make it fall silent meanwhile."""
    plain = LIMITS | {"DATABASE_URL": silence.plain}
    with (
        started(shop, "silent_database", direct, **plain) as program,
        shop.running(
            f"--pythonpath={PROGRAMS}",
            "service_with_query_route:create_app()",
            ready="/ask",
            DATABASE_URL=silence.encrypted,
            DATABASE_POOL_SIZE="5",
            **LIMITS,
        ) as running,
        ThreadPoolExecutor(40) as clients,
    ):

        def ask(number: int) -> list[Use]:
            return list(clients.map(get, [running.client] * number))

        workers = children(running.process.pid)
        ask(40)  # so that the pools of both are full
        assert read_line(program) == "open"
        if silence.lose_answer:
            silence.lose_answer()
        go_on(program)
        assert read_line(program) == "ready"
        silence.of.freeze()
        try:
            go_on(program)
            found = {"10 requests": ask(10), "5 requests": ask(5)}
            assert read_line(program) == "done"
        finally:
            silence.of.heal()
        go_on(program)
        found["10 requests later"] = ask(10)
        more = json.loads(read_line(program))
        assert children(running.process.pid) == workers
    rows = more.pop("rows")
    return found | more, rows


def get(client: httpx.Client) -> Use:
    began = time.monotonic()
    try:
        answer = client.get("/ask", timeout=20)
    except httpx.TransportError as error:
        return time.monotonic() - began, repr(error)
    seconds = round(time.monotonic() - began, 2)
    if answer.headers["content-type"] != "application/problem+json":
        return seconds, str(answer.status_code)
    fault = answer.json()["type"].removeprefix("urn:problem:")
    return seconds, f"{answer.status_code} {fault}"


@contextmanager
def started(
    shop: Service, name: str, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """One of tests/programs, which prints how far it is and waits to go on."""
    with subprocess.Popen(
        ["python", PROGRAMS / f"{name}.py", *arguments],
        cwd=shop.folder,
        env=shop._environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        limit = threading.Timer(180, program.kill)
        limit.start()
        try:
            yield program
        finally:
            limit.cancel()
            program.kill()


def read_line(program: subprocess.Popen[str]) -> str:
    assert program.stdout
    return program.stdout.readline().strip()


def go_on(program: subprocess.Popen[str]) -> None:
    assert program.stdin
    program.stdin.write("\n")
    program.stdin.flush()


@pytest.mark.parametrize("bound", [True, False])
@pytest.mark.parametrize("driver", NETWORKED)
def test_stream_whose_server_falls_silent_ends(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path: Path,
    driver: str,
    bound: bool,  # noqa: FBT001
) -> None:
    shop = service(driver)
    changes = {
        "DATABASE_URL": server_of(driver).url,
        "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
        "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1.5",
        "DATABASE_CLIENT_TIMEOUT_SECONDS": "2",
        "DATABASE_CONNECT_TIMEOUT_SECONDS": "4",
        "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "5",
        "PYTHONPATH": str(ROOT),
    }
    if not bound:
        line = 'if getattr(cursor, "server_side", False):'
        source = shop.changed(
            *(tmp_path / "src", "db/engine/watchdog.py"), *(line, "if False:")
        )
        changes |= {"PYTHONPATH": f"{source}:{ROOT}", "NEVER_SECONDS": "5"}
    done = shop.program("stream_from_silent_server", **changes)

    assert done.stdout == ("unavailable\n" if bound else "None\n"), done.stderr
