"""PgBouncer in front of the server, in the generations before and after 1.21."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import pytest
import yaml
from sqlalchemy import make_url

from tests.service.test_round_trips import ROUND_TRIPS
from tests.support.rendering import ROOT, Answers
from tests.support.servers import (
    PGBOUNCERS,
    PgBouncer,
    Server,
    binaries,
    certify,
    pgbouncer,
    running_pgbouncer,
)
from tests.support.service import Service, conversation, free_port, wait_until

pytestmark = pytest.mark.boot

DRIVERS = ("asyncpg", "psycopg")
NOTHING: dict[str, Any] = {"errors": {}, "wrong": {}}
# Of two processes, before and after the table has changed, and the state they leave.
RIGHT = {
    "before": NOTHING,
    "after": NOTHING,
    "missing": [0, 0],
    "left": {"prepared": 0, "jit": 0},
}
GOLDEN = ROOT / "tests" / "golden" / "conversation.json"
LIMITS = (
    "lock_timeout",
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "timezone",
)
# PgBouncer does not run as root.
RUN_AS = "user = postgres\n" if os.geteuid() == 0 else ""
HELD = "SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory'"


@pytest.fixture(params=PGBOUNCERS)
def generation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def pooled(rendered: Callable[[Answers], Service]) -> Callable[..., Service]:
    """The service on a driver behind a pooler, with its environment installed."""

    def make(driver: str, pooler: str = "transaction", **more: str) -> Service:
        cloud = "aws_rds" if pooler == "rds_proxy" else "self_hosted"
        answers: Answers = {"driver": driver, "cloud": cloud, "runtime": "container"}
        return rendered(answers | {"pooler": pooler} | more)

    return make


@pytest.fixture
def way(
    server: Server, pooler_of: Callable[..., PgBouncer], tmp_path: Path
) -> Callable[..., dict[str, str]]:
    """The variables of an empty database: by way of a pooler, and around it."""

    def way(*pooler: str | int) -> dict[str, str]:
        name = f"db_{tmp_path.name.lower()}"
        direct = server.database(name)
        # As a server has it by default: what asyncpg would leave changed is then seen.
        server.execute(f'ALTER DATABASE "{name}" SET jit = on')
        return {
            "DATABASE_URL": pooler_of(*pooler).through(direct),
            "DATABASE_DIRECT_URL": direct,
        }

    return way


def test_pgbouncer_has_its_version(
    pooler_of: Callable[..., PgBouncer], generation: str
) -> None:
    """A client connects with and without TLS."""
    pooler = pooler_of(generation)

    async def connect(url: str) -> None:
        await (await asyncpg.connect(url)).close()

    asyncio.run(connect(pooler.url))
    asyncio.run(connect(pooler.verified))

    (version,) = pooler.ask("SHOW VERSION")
    assert version["version"].startswith(f"PgBouncer {generation}.")


def run(service: Service, name: str, *arguments: str, **variables: str) -> Any:
    done = service.program(name, *arguments, **variables)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_row_is_wrong_not_even_after_an_alter_table(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    driver: str,
    generation: str,
) -> None:
    """2 processes x 50 tasks x 20 units on 5 sessions, which keep no state."""
    variables = way(generation)
    found = run(pooled(driver), "schema_change_behind_pooler", "5", "20", **variables)

    assert found == RIGHT


class Without:
    """The finding without one line of session_init.py."""

    def __init__(self, driver: str, generation: str, code: str, found: str) -> None:
        self.driver = driver
        self.generation = generation
        self.code = code
        self.found = found


PROTECTIONS = {
    # The types of a statement stay those of its first preparation.
    "SQLAlchemy's cache": Without(
        "asyncpg",
        "1.18",
        '        "prepared_statement_cache_size": 0,\n',
        "after wrong",
    ),
    # PgBouncer keeps a plan that is not valid any more.
    "asyncpg's cache": Without(
        "asyncpg",
        "1.24",
        '        "statement_cache_size": 0,\n'
        '        "prepared_statement_cache_size": 0,\n',
        "after errors",
    ),
    # Names of different clients meet in one session of the server.
    "psycopg's names": Without(
        "psycopg", "1.18", '        "prepare_threshold": None,\n', "before errors"
    ),
    "types without SET": Without(
        "asyncpg",
        "1.24",
        "        self._server_caps = self._server_caps._replace(jit=False)\n",
        "left jit",
    ),
}


@pytest.mark.parametrize("name", PROTECTIONS)
def test_each_option_of_a_session_is_needed(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    tmp_path: Path,
    name: str,
) -> None:
    protection = PROTECTIONS[name]
    service = pooled(protection.driver)
    file = "db/engine/session_init.py"
    source = service.changed(tmp_path / "src", file, protection.code, "")

    found = run(
        service,
        "schema_change_behind_pooler",
        *("5", "8"),
        PYTHONPATH=source,
        **way(protection.generation),
    )

    part, kind = protection.found.split()
    assert found[part][kind], found


@pytest.mark.parametrize(
    ("driver", "mode", "version"),
    [
        ("asyncpg", "transaction", "1.18"),
        ("psycopg", "transaction", "1.24"),
        ("asyncpg", "session", "1.18"),
        ("psycopg", "session", "1.24"),
    ],
)
def test_the_services_own_tests_pass_behind_a_pooler(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    driver: str,
    mode: str,
    version: str,
) -> None:
    """With as many sessions of the server as a pool has connections, and exports."""
    variables = way(version, mode, 20 if mode == "transaction" else 60)
    if mode == "session":
        del variables["DATABASE_DIRECT_URL"]

    assert "passed" in pooled(driver, mode).make("test", **variables)


# asyncpg asks for the types of each statement that is not cached.
# A statement is prepared and executed in two round trips, as nothing has a name.
MORE = {
    "asyncpg": {
        "read": 2,
        "two_reads": 4,
        "write": 4,
        "write_and_fail": 4,
        "snapshot_of_two": 6,
        "snapshot_with_settings": 6,
        "write_with_settings": 6,
        "read after a pause": 3,
    },
    "psycopg": {},
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_no_use_takes_a_round_trip_too_many_behind_a_pooler(
    pooled: Callable[..., Service], way: Callable[..., dict[str, str]], driver: str
) -> None:
    one = {"DATABASE_POOL_SIZE": "1", "DATABASE_MAX_OVERFLOW": "0"}
    variables = way("1.18") | one | {"PYTHONPATH": str(ROOT)}

    found = run(pooled(driver), "round_trip_counts", **variables)
    assert found == ROUND_TRIPS | MORE[driver]


def test_migrations_go_around_the_pooler_while_the_service_uses_it(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    server: Server,
) -> None:
    """Of four at once, one process migrates. No session holds their lock afterwards."""
    service, variables = pooled("asyncpg"), way("1.18")
    upgrade = ["alembic", "upgrade", "head"]
    environment = service._environment(**variables)
    runs = [
        subprocess.Popen(
            upgrade,
            cwd=service.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    outputs = [each.communicate(timeout=60)[1] for each in runs]

    assert [each.returncode for each in runs] == [0] * 4, outputs
    assert sum(output.count("Running upgrade") for output in outputs) == 1
    # Their sessions end a little later than they do.
    wait_until(lambda: server.execute(HELD)[0]["locks"] == 0)
    with service.running(**variables) as running:
        assert conversation(running.client) == json.loads(GOLDEN.read_text())
        for command in (("downgrade", "-1"), ("upgrade", "+1")):
            done = service.command("alembic", *command, **variables)
            assert done.returncode == 0, done.stderr
        assert running.client.get("/orders").status_code == 200
        assert running.stop() == 0


def test_lock_of_a_migration_through_the_pooler_would_leak(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    server: Server,
) -> None:
    """The pooler keeps the session: hence the URL of the server itself."""
    variables = way("1.24")
    variables["DATABASE_DIRECT_URL"] = variables["DATABASE_URL"]
    done = pooled("asyncpg").command("alembic", "upgrade", "head", **variables)

    assert done.returncode == 0, done.stderr
    assert server.execute(HELD)[0]["locks"] == 1
    server.empty(str(make_url(variables["DATABASE_URL"]).database))


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "DATABASE_DIRECT_URL is missing: set it to the URL of the server itself"),
        ("secret", "DATABASE_DIRECT_URL is not a URL: write "),
        (
            "mysql://u:secret@h/n",
            "DATABASE_DIRECT_URL asks for mysql, but this service ",
        ),
        (
            "postgresql://u:secret@h/n?sslmode=prefer",
            "DATABASE_SSLMODE: Input should be 'disable', 'require', ",
        ),
    ],
)
def test_wrong_direct_url_ends_a_migration_in_one_sentence(
    pooled: Callable[..., Service], url: str, sentence: str
) -> None:
    done = pooled("asyncpg").command(
        *("alembic", "upgrade", "head"),
        DATABASE_URL="postgresql://user:secret@127.0.0.1:1/shop",
        DATABASE_DIRECT_URL=url,
    )

    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("driver", DRIVERS)
def test_listener_goes_around_the_pooler_and_comes_back(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    driver: str,
) -> None:
    """None comes first, and after the interruption. A second listener is rejected."""
    variables = way("1.24") | {"DATABASE_LISTENERS": "1"}
    found = run(pooled(driver), "notification_listener", **variables)

    assert found == {
        "heard": [None, "one", 1, None, "two", None],
        "error": "DATABASE_LISTENERS=1: set it to the number of listen() in a process.",
        "tasks": 0,
    }


@pytest.mark.parametrize(
    ("mode", "more"),
    [
        ("transaction", {"runtime": "kubernetes"}),
        ("transaction", {"cloud": "aws_rds"}),
        ("session", {}),
    ],
    ids=["kubernetes", "cloud", "session"],
)
def test_what_is_rendered_for_the_pooler_works(
    pooled: Callable[..., Service],
    server: Server,
    generation: str,
    mode: str,
    more: dict[str, str],
) -> None:
    """The role of bootstrap.sql, the file of PgBouncer: TLS, SCRAM, and the limits.

    Only in session mode a session would outlive RECONNECT with its client. A pod has no
    folder for a socket, and its image may have no authorities of the system.
    """
    service = pooled("asyncpg", mode, **more)
    url = make_url(server.database("shop"))
    for _ in range(2):
        subprocess.run(
            [
                *(binaries() / "psql", "--quiet", "--file=deploy/bootstrap.sql"),
                url.render_as_string(hide_password=False),
            ],
            cwd=service.folder,
            input=b"secret\n" * 4,  # that of each role, twice
            start_new_session=True,  # without a terminal to ask at
            check=True,
        )
    (role,) = server.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'shop'")
    with TemporaryDirectory() as temporary:
        folder, port = Path(temporary), free_port()
        certify(folder, "postgres")
        text = ini_of(service.folder / "deploy")
        known = role["rolpassword"] if "pg_authid has them" in text else "secret"
        assert '"user" "password"' in text or known != "secret"
        (folder / "userlist.txt").write_text(f'"shop" "{known}"\n')
        assert "client_tls_ca_file = " in text
        assert ("\nserver_fast_close = 1\n" in text) is (mode == "session")
        for ours, theirs in {
            "host=db.example.com port=5432": f"host=127.0.0.1 port={url.port}",
            "verify-full": "verify-ca",  # 1.24 knows no second address of localhost
            "listen_addr = *": "listen_addr = 127.0.0.1",
            "listen_port = 6432": f"listen_port = {port}",
            "/etc/pgbouncer/ca.pem": str(server.ca),
            "/etc/pgbouncer/": f"{folder}/",
            "[pgbouncer]\n": "[pgbouncer]\n" + RUN_AS,
        }.items():
            assert ours in text
            text = text.replace(ours, theirs)
        (folder / "pgbouncer.ini").write_text(text)
        home = ROOT / ".servers" / PGBOUNCERS[generation]
        log = folder / "log"
        with running_pgbouncer(home, folder / "pgbouncer.ini", port, log):
            socket = Path(f"/tmp/.s.PGSQL.{port}")
            assert socket.exists() is ("kubernetes" not in more.values())
            way = f"shop@localhost:{port}/shop?sslmode=verify-full&sslrootcert="
            limits = asyncio.run(limits_of(f"postgresql://{way}{folder}/ca.pem"))

    assert limits == ["2s", "5s", "10s", "UTC"], log
    server.empty("shop")
    server.execute("DROP ROLE shop, shop_owner")


@pytest.mark.parametrize("driver", DRIVERS)
def test_process_that_starts_while_the_pooler_is_full_is_unavailable(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    tmp_path: Path,
    driver: str,
) -> None:
    """503 and not 500, although a query of SQLAlchemy's first connect fails."""
    service, variables = pooled(driver), way("1.18")
    done = service.program("saturated_pooler", "5", **variables)

    assert done.stdout.split() == ["unavailable", "1"], done.stderr
    code = "except (NotImplementedError, exc.ResourceClosedError, TypeError) as error:"
    source = service.changed(
        *(tmp_path / "src", "db/engine/watchdog.py", code),
        "except ZeroDivisionError as error:",
    )
    without = service.program("saturated_pooler", "5", PYTHONPATH=source, **variables)
    assert without.stdout.split()
    assert "unavailable" not in without.stdout


@pytest.mark.parametrize("driver", DRIVERS)
def test_tenants_see_their_own_rows_whoever_had_the_session_before(
    pooled: Callable[..., Service],
    way: Callable[..., dict[str, str]],
    generation: str,
    driver: str,
) -> None:
    """Two sessions of the server for eight tasks, in transaction mode."""
    variables = way(generation, "transaction", 2)
    done = pooled(driver).program("tenants", **variables)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "foreign": 0,
        "missing": 0,
        "left": 0,
        "forged": "42501",
    }


def ini_of(folder: Path) -> str:
    """The file of PgBouncer, with what it includes, at one place."""
    if (folder / "pgbouncer.ini").exists():
        return (folder / "pgbouncer.ini").read_text()
    text = (folder / "kubernetes" / "base" / "pgbouncer.ini").read_text()
    own = (folder / "kubernetes" / "production" / "databases.ini").read_text()
    included = "%include /etc/pgbouncer/databases.ini\n"
    assert included in text
    return text.replace(included, own).replace(
        "/etc/pgbouncer/secrets/", "/etc/pgbouncer/"
    )


def test_end_of_a_pod_waits_for_its_transactions(
    pooled: Callable[..., Service], server: Server, generation: str
) -> None:
    """By SIGINT: a SIGTERM at once would cut them, in each generation."""
    base = pooled("asyncpg", runtime="kubernetes").folder / "deploy/kubernetes/base"
    pod, _ = list(yaml.safe_load_all((base / "pgbouncer.yaml").read_text()))[1:]
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    hook = container["lifecycle"]["preStop"]["exec"]["command"]
    with (
        TemporaryDirectory() as folder,
        pgbouncer(Path(folder), server, generation) as pooler,
    ):
        for ours, theirs in {
            "sleep 10; ": "",
            "-INT 1;": f"-INT {pooler.process.pid};",
            "-0 1;": f"-0 {pooler.process.pid};",
        }.items():
            assert ours in hook[-1]
            hook[-1] = hook[-1].replace(ours, theirs)
        asyncio.run(end_in_a_transaction(pooler, hook))


async def end_in_a_transaction(pooler: PgBouncer, hook: list[str]) -> None:
    connection = await asyncpg.connect(pooler.url, statement_cache_size=0)
    async with connection.transaction():
        await connection.execute("SELECT 1")
        ending = await asyncio.create_subprocess_exec(*hook)
        await asyncio.sleep(0.5)
        assert (ending.returncode, pooler.process.poll()) == (None, None)
        await connection.execute("SELECT 1")
    assert pooler.process.wait(timeout=5) == 0
    assert await asyncio.wait_for(ending.wait(), 5) == 0


async def limits_of(url: str) -> list[str]:
    connection = await asyncpg.connect(url, password="secret", statement_cache_size=0)  # noqa: S106
    try:
        return [await connection.fetchval(f"SHOW {name}") for name in LIMITS]
    finally:
        await connection.close()
