"""`make doctor` and the check at start, on real servers, right and wrong."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import make_url

from tests.support.rendering import Render
from tests.support.servers import (
    DRIVERS_ON,
    PGBOUNCERS,
    SERVERS_OF,
    PgBouncer,
    Server,
    binaries,
    launcher,
    pgbouncer,
)
from tests.support.service import PATIENT, Running, Service, free_port

pytestmark = pytest.mark.boot

POSTGRESQL = ("asyncpg", "psycopg")
WAYS = list(itertools.product(POSTGRESQL, PGBOUNCERS))
MYSQL = ("aiomysql", "asyncmy")
HIDDEN = "hunter2"
CLOSED = {"ALLOWED_HOSTS": "shop.example.com"}
CHECKS = "server encryption role sessions budget timeouts clock migrations edge"
# As deploy/bootstrap.sql of a service behind a pooler sets them for its role.
LIMITS = {
    "lock_timeout": "2s",
    "statement_timeout": "5s",
    "idle_in_transaction_session_timeout": "10s",
}
# A pooler that accepts parameters of a session, and drops them.
IGNORING = {"ignore_startup_parameters": ",".join(["options", *LIMITS])}
SHIFTED = (
    "import runpy, time; real = time.time; time.time = lambda: real() - 60;"
    " runpy.run_module('shop.db.doctor', run_name='__main__')"
)


class Report(dict[str, tuple[str, str]]):
    """Level and text of each check, in the order of the lines."""

    def __init__(self, code: int, output: str) -> None:
        lines = [line.split(None, 2) for line in output.splitlines()]
        super().__init__({check: (level, text) for level, check, text in lines})
        self.code = code

    @property
    def wrong(self) -> dict[str, str]:
        # These tests log in as the administrator; test_roles.py has the line `role`.
        return {
            check: level
            for check, (level, _) in self.items()
            if level != "ok" and check != "role"
        }


def doctor(shop: Service, *command: str, **variables: str) -> Report:
    done = shop.python(*(command or ("-m", "shop.db.doctor")), **CLOSED, **variables)
    assert done.stderr == ""
    return Report(done.returncode, done.stdout)


def documented(shop: Service) -> set[str]:
    """The checks that the README has in its table."""
    section = (shop.folder / "README.md").read_text().partition("\n## Doctor\n")[2]
    table = section.partition("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))


@pytest.fixture(scope="module")
def pooled(
    quickly: Render, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], dict[str, str]]:
    """The variables with which the service has the code for a pooler in a mode."""

    def make(driver: str, mode: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp(f"{driver}-{mode}") / "shop"
        quickly(folder, {"driver": driver, "pooler": mode})
        return {"PYTHONPATH": f"{folder}/src"}

    return make


@pytest.fixture
def ready(
    service: Callable[[str], Service], database: Callable[..., dict[str, str]]
) -> Callable[..., tuple[Service, str]]:
    """The service on a driver, and the URL of its migrated database."""

    def make(driver: str, server: str = "") -> tuple[Service, str]:
        variables = database(driver, server)
        service(driver).migrate(**variables)
        return service(driver), variables["DATABASE_URL"]

    return make


def limit(server: Server, url: str) -> None:
    """Give the database the timeouts that a pooler does not pass on."""
    for name, value in LIMITS.items():
        server.execute(
            f'ALTER DATABASE "{make_url(url).database}" SET {name} = "{value}"'
        )


@pytest.mark.parametrize(("driver", "server"), [*DRIVERS_ON, ("aiosqlite", "")])
def test_right_configuration_has_no_warning(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    shop, variables = service(driver), database(driver, server)
    shop.migrate(**variables)
    report = doctor(shop, **variables)

    assert (report.code, report.wrong) == (0, {})
    checks = "file pragmas migrations edge" if driver == "aiosqlite" else CHECKS
    assert sorted(report) == sorted(checks.split())
    assert documented(shop) == set(report)
    printed = shop.make("doctor", **CLOSED, **variables)
    levels = re.findall(r"^(ok|warn) ", printed, re.MULTILINE)
    assert levels == [level for level, _ in report.values()]


@pytest.mark.parametrize("driver", ["asyncpg", "aiosqlite"])
def test_missing_setting_of_the_owner_stops_neither_migration_nor_doctor(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    driver: str,
) -> None:
    shop, variables = service(driver), database(driver)
    change = ("settings.py", "    pass", "    api_key: str")
    variables["PYTHONPATH"] = shop.changed(tmp_path / "src", *change)
    shop.migrate(**variables)
    report = doctor(shop, **variables)
    create = "from shop.main import create_app; create_app()"
    started = shop.python("-c", create, **variables)

    assert (report.code, report.wrong) == (0, {})
    assert started.stderr == "API_KEY: Field required.\n"


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_right_pooler_has_no_warning(
    ready: Callable[[str], tuple[Service, str]],
    pooler_of: Callable[..., PgBouncer],
    pooled: Callable[[str, str], dict[str, str]],
    server: Server,
    way: tuple[str, str],
) -> None:
    driver, generation = way
    shop, url = ready(driver)
    limit(server, url)
    # Around the pooler, or by its sessions, as on Supabase from a network without IPv6.
    by_session = pooler_of(generation, "session").through(url)
    for mode, more in (
        ("transaction", {"DATABASE_DIRECT_URL": url}),
        ("transaction", {"DATABASE_DIRECT_URL": by_session}),
        ("session", {}),
    ):
        variables = {**more, **pooled(driver, mode)}
        through = pooler_of(generation, mode).through(url)
        report = doctor(shop, DATABASE_URL=through, **variables)

        assert (mode, report.code, report.wrong) == (mode, 0, {})
        assert ("direct" in report) is (mode == "transaction")


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_listeners_are_a_part_of_the_budget(
    ready: Callable[[str], tuple[Service, str]],
    pooler_of: Callable[..., PgBouncer],
    pooled: Callable[[str, str], dict[str, str]],
    server: Server,
    driver: str,
) -> None:
    """The server has 300 connections, of which the pooler opens some."""
    shop, url = ready(driver)
    limit(server, url)
    variables = {"DATABASE_DIRECT_URL": url, **pooled(driver, "transaction")}
    variables["DATABASE_URL"] = pooler_of("1.24").through(url)
    none = doctor(shop, **variables)
    few = doctor(shop, DATABASE_LISTENERS="3", **variables)
    many = doctor(shop, DATABASE_LISTENERS="40", **variables)

    assert "listen()" not in none["budget"][1]
    assert (few.code, few.wrong) == (0, {})
    assert ", listen() 24 of " in few["budget"][1]
    assert (many.code, many.wrong) == (1, {"budget": "fail"})
    assert ", listen() 320, but max_connections leaves " in many["budget"][1]


@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_pooler_that_the_answers_do_not_name_is_reported(
    ready: Callable[[str], tuple[Service, str]],
    pooler_of: Callable[..., PgBouncer],
    pooled: Callable[[str, str], dict[str, str]],
    server: Server,
    way: tuple[str, str],
) -> None:
    driver, generation = way
    shop, url = ready(driver)
    through = pooler_of(generation).through(url)
    rejected = doctor(shop, DATABASE_URL=through)
    # The pooler's port for transactions instead of its port for sessions.
    wrong_port = doctor(shop, DATABASE_URL=through, **pooled(driver, "session"))
    with (
        TemporaryDirectory() as folder,
        pgbouncer(Path(folder), server, generation, **IGNORING) as ignoring,
    ):
        accepted = doctor(shop, DATABASE_URL=ignoring.through(url))
    made_for_it = pooled(driver, "transaction")
    direct = {"DATABASE_DIRECT_URL": through}
    to_itself = doctor(shop, DATABASE_URL=through, **direct, **made_for_it)
    around = doctor(shop, DATABASE_URL=url, **made_for_it)

    assert [*rejected] == ["server"]
    assert "a pooler rejects this" in rejected["server"][1]
    for report in wrong_port, accepted:
        level, text = report["sessions"]
        assert (report.code, level) == (1, "fail")
        assert re.match(r"port \d+ is that of a pooler in transaction mode", text)
    # The pooler has dropped the timeouts of the session.
    assert accepted["timeouts"][0] == "fail"
    assert "SET lock_timeout = '2s'" in accepted["timeouts"][1]
    assert to_itself["direct"][0] == "fail"
    assert {*around.wrong} == {"sessions", "direct", "timeouts"}
    assert around["sessions"][0] == around["direct"][0] == "warn"


def test_pooler_that_has_missed_a_failover_is_reported(
    ready: Callable[[str], tuple[Service, str]],
    pooler_of: Callable[..., PgBouncer],
    pooled: Callable[[str, str], dict[str, str]],
    server: Server,
) -> None:
    """Its connections lead to a server that is not the one of DATABASE_DIRECT_URL."""
    shop, url = ready("asyncpg")
    limit(server, url)
    variables = pooled("asyncpg", "transaction")
    variables["DATABASE_URL"] = pooler_of("1.24").through(url)
    with (
        TemporaryDirectory() as folder,
        launcher.started(binaries(), Path(folder)) as other,
    ):
        report = doctor(shop, DATABASE_DIRECT_URL=other, **variables)
        checks = Path(variables["PYTHONPATH"], "shop", "db", "pooler", "checks.py")
        text = checks.read_text()
        assert text.count(".scalar_one() != expected:") == 1
        checks.write_text(text.replace(".scalar_one() != expected:", " is None:"))
        unchecked = doctor(shop, DATABASE_DIRECT_URL=other, **variables)

    assert (report.code, report.wrong) == (1, {"direct": "fail"})
    assert "RECONNECT" in report["direct"][1]
    assert unchecked.code == 0


@pytest.mark.parametrize("driver", [*POSTGRESQL, *MYSQL])
def test_mistakes_in_the_environment_are_reported(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    shop, variables = service(driver), database(driver)
    behind = doctor(shop, **variables)
    shop.migrate(**variables)
    unverified = re.sub(r"\?.*", "?sslmode=require", variables["DATABASE_URL"])
    encryption = doctor(shop, DATABASE_URL=unverified)
    budget = doctor(shop, **variables, DATABASE_POOL_SIZE="100")
    workers = doctor(shop, **variables, WEB_CONCURRENCY="64")
    clock = doctor(shop, "-c", SHIFTED, **variables)

    assert (behind.code, behind.wrong) == (1, {"migrations": "fail"})
    assert (encryption.code, encryption.wrong) == (0, {"encryption": "warn"})
    assert (budget.code, budget.wrong) == (1, {"budget": "fail"})
    assert "8 processes at the peak of a rollout x 100 = 800" in budget["budget"][1]
    assert workers["budget"][1].startswith("256 processes")
    assert clock.wrong == {"clock": "warn"}
    assert "+60 s" in clock["clock"][1]


@pytest.mark.parametrize("driver", [*POSTGRESQL, *MYSQL])
def test_database_that_cannot_be_reached_is_one_line_without_the_password(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    driver: str,
) -> None:
    url = make_url(server_of(driver).url).set(password=HIDDEN)
    wrong = {
        "login": url.set(username="nobody"),
        "database": url.set(username="postgres", database="nowhere"),
        "port": url.set(port=free_port()),
        "host": url.set(host="nowhere.invalid", query={"sslmode": "disable"}),
    }
    for each in wrong.values():
        report = doctor(
            service(driver), DATABASE_URL=each.render_as_string(hide_password=False)
        )

        assert (report.code, report.wrong) == (1, {"server": "fail"})
        assert HIDDEN not in str(report)


@contextmanager
def set_globally(server: Server, name: str, value: int) -> Iterator[None]:
    (row,) = server.execute(f"SELECT @@global.{name} AS value")
    server.execute(f"SET GLOBAL {name} = {value}")
    try:
        yield
    finally:
        server.execute(f"SET GLOBAL {name} = {row['value']}")


@pytest.mark.parametrize(
    ("driver", "name"), [*zip(MYSQL, SERVERS_OF["mysql"], strict=True)]
)
def test_wrong_mysql_is_reported(
    ready: Callable[..., tuple[Service, str]],
    server_of: Callable[..., Server],
    driver: str,
    name: str,
) -> None:
    (shop, url), server = ready(driver, name), server_of(driver, name)
    with set_globally(server, "wait_timeout", 60):
        impatient = doctor(shop, DATABASE_URL=url)
    with set_globally(server, "read_only", 1):
        replica = doctor(shop, DATABASE_URL=url)
    server.execute("DROP USER IF EXISTS few")
    server.execute("CREATE USER few WITH MAX_USER_CONNECTIONS 20")
    server.execute("GRANT ALL ON *.* TO few")
    theirs = make_url(url).set(username="few").render_as_string(hide_password=False)
    few = doctor(shop, DATABASE_URL=theirs)

    assert impatient.wrong == {"timeouts": "warn"}
    assert replica.wrong == {"server": "fail"}
    assert few.wrong == {"budget": "fail"}
    assert "max_user_connections leaves 20" in few["budget"][1]


@pytest.mark.parametrize("driver", POSTGRESQL)
def test_wrong_postgresql_is_reported(
    ready: Callable[[str], tuple[Service, str]], server: Server, driver: str
) -> None:
    shop, url = ready(driver)
    name = make_url(url).database
    found = []
    for wrong in (
        f'ALTER DATABASE "{name}" CONNECTION LIMIT 20',
        f'ALTER DATABASE "{name}" SET idle_session_timeout = "60s"',
        f'ALTER DATABASE "{name}" SET deadlock_timeout = "3s"',
    ):
        server.execute(wrong)
        found.append(doctor(shop, DATABASE_URL=url))

    few, restless, blind = found
    assert few.wrong == {"budget": "fail"}
    assert "the database's CONNECTION LIMIT leaves 20" in few["budget"][1]
    assert "idle_session_timeout" in restless["timeouts"][1]
    assert "deadlock_timeout" in blind["timeouts"][1]


def budget_levels(log: str) -> list[str]:
    return re.findall(r'"level": "(\w+)"[^\n]*"message": "connection budget: ', log)


def wait_for_budget(running: Running, times: int) -> None:
    deadline = time.monotonic() + 30
    while len(budget_levels(running.log.read_text())) < times:
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.02)


def test_start_logs_whether_the_budget_fits(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop, variables = service("asyncpg"), database("asyncpg")
    logs = {}
    for size, mode in ("5", ""), ("100", "warn"), ("100", "off"):
        more = {"DATABASE_POOL_SIZE": size, "DATABASE_BUDGET_CHECK": mode} | PATIENT
        with shop.running(**variables, **more) as running:
            wait_for_budget(running, 0 if mode == "off" else 2)
            assert running.stop() == 0
        logs[size, mode] = budget_levels(running.log.read_text())

    assert logs == {
        ("5", ""): ["INFO"] * 2,
        ("100", "warn"): ["WARNING"] * 2,
        ("100", "off"): [],
    }


def test_start_with_a_budget_that_does_not_fit_can_end(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    shop = service("asyncpg")
    waits = (
        "db/doctor/startup_check.py",
        "START_SECONDS = 1",
        "START_SECONDS = 20",
    )
    variables = {
        **database("asyncpg"),
        "PYTHONPATH": shop.changed(tmp_path / "src", *waits),
        "DATABASE_POOL_SIZE": "100",
        "DATABASE_BUDGET_CHECK": "refuse",
        **PATIENT,
    }
    with shop.running(ready="", **variables) as running:
        code = running.process.wait(timeout=120)
    log = running.log.read_text()

    assert code == 3
    assert {*budget_levels(log)} == {"WARNING"}
    assert "8 processes at the peak of a rollout x 100 = 800, but" in log
    assert "Traceback" not in log


def test_role_without_rights_prevents_no_start(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    server: Server,
) -> None:
    shop, variables = service("asyncpg"), database("asyncpg")
    url = make_url(variables["DATABASE_URL"])
    server.execute("DROP ROLE IF EXISTS stranger")
    server.execute("CREATE ROLE stranger LOGIN")
    there = make_url(server.url).set(database=url.database)
    inside = replace(server, url=there.render_as_string(hide_password=False))
    inside.execute("REVOKE SELECT ON pg_catalog.pg_roles FROM PUBLIC")
    stranger = url.set(username="stranger").render_as_string(hide_password=False)
    with shop.running(DATABASE_URL=stranger, DATABASE_BUDGET_CHECK="refuse") as running:
        wait_for_budget(running, 2)

    assert budget_levels(running.log.read_text()) == ["WARNING"] * 2
    assert "cannot be checked: permission denied" in running.log.read_text()
