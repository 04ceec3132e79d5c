"""A replica that becomes a primary of its own, an endpoint, a pooler, the doctor."""

import json
import re
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import make_url

from tests.replicas.test_replica_faults import Load, scrape
from tests.replicas.test_replicas import HEADER, until_ready
from tests.service.test_doctor import doctor
from tests.support.clusters import CLUSTERS, Cluster, Replica, until
from tests.support.processes import children
from tests.support.proxy import Proxy
from tests.support.rendering import Answers
from tests.support.servers import DRIVERS, DRIVERS_ON, pgbouncer
from tests.support.service import ORDER, PROGRAMS, Running, Service

pytestmark = pytest.mark.boot

BAN_SECONDS = 2
# The counter of a worker, in the file of prometheus_client: it begins with 0.
BANS = re.compile(rb'"reason": "primary"\}, "[^"]*"\] *(.{8})', re.DOTALL)
# "cannot execute UPDATE in a read-only transaction", in the words of each.
REFUSED = {"postgresql": "25006", "mysql": 1792}


@contextmanager
def writer_to_be(shop: Service, **variables: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        ["python", str(PROGRAMS / "writes_after_promotion.py")],
        cwd=shop.folder,
        env=shop._environment(**variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize("server", CLUSTERS)
def test_replica_that_becomes_a_primary_is_neither_written_to_nor_read_from(
    routed: Callable[[str], Service], tmp_path: Path, server: str
) -> None:
    """By a session of any driver; a service uses its endpoint again when it leads to
    another replica.
    """
    drivers = [driver for driver, name in DRIVERS_ON if name == server]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        cluster = stack.enter_context(CLUSTERS[server](folder, 2))
        promoted, other = cluster.replicas
        port = make_url(promoted.url).port or 0
        endpoint = stack.enter_context(Proxy("127.0.0.1", port))
        writers: list[subprocess.Popen[str]] = []
        for driver in drivers:
            shop = routed(driver)
            primary, urls = cluster.database(driver)
            through = make_url(urls[0]).set(port=endpoint.port)
            variables = {
                "DATABASE_URL": primary,
                "DATABASE_REPLICA_URLS": through.render_as_string(hide_password=False),
                "PYTHONPATH": shop.changed(
                    *(tmp_path / driver, "db/replicas/replica.py"),
                    *("BAN_SECONDS = 10", f"BAN_SECONDS = {BAN_SECONDS}"),
                ),
            }
            shop.migrate(**variables)
            promoted.catch_up()
            writers.append(stack.enter_context(writer_to_be(shop, **variables)))
        metrics = tmp_path / "metrics"
        metrics.mkdir()
        variables["PROMETHEUS_MULTIPROC_DIR"] = str(metrics)
        running = stack.enter_context(shop.running(**variables))
        client = running.client
        orders = [client.post("/orders", json=ORDER).json() for _ in range(3)]
        client.cookies.clear()
        promoted.catch_up()
        until_ready(running)
        workers = children(running.process.pid)

        with Load(str(client.base_url), orders) as load:
            promoted.promote()
            refused = [json.loads(writer.communicate("\n")[0]) for writer in writers]
            until(lambda: banned_by(metrics) == 2, "both workers have banned it")
            spoil(promoted, driver)
            load.go_on()
            endpoint._server = ("127.0.0.1", make_url(other.url).port or 0)
            before = reads(running)
            until(lambda: reads(running) > before + 20, "used again")
            load.go_on()
        assert children(running.process.pid) == workers
        assert running.stop() == 0

    assert refused == [[REFUSED[DRIVERS[driver]["dialect"]]] * 3] * 2
    assert {answer.status for answer in load.answers} == {200}
    assert all(answer.was_right for answer in load.answers)


def banned_by(metrics: Path) -> int:
    """How many workers have: one of them may do so twice before another does once."""
    found = (BANS.search(file.read_bytes()) for file in metrics.glob("counter_*.db"))
    return sum(bool(each and struct.unpack("=d", each[1])[0]) for each in found)


def reads(running: Running) -> float:
    return scrape(running).sum("database_reads_total", 'pool="localhost')


def fallbacks(running: Running) -> dict[str, float]:
    metrics, name = scrape(running), "database_replica_fallbacks_total"
    return {
        reason: metrics.sum(name, f'reason="{reason}"')
        for reason in ("none ready", "behind")
    }


def spoil(server: Replica, database: str) -> None:
    """Write there what no read may return."""
    url = make_url(server.url).set(database=database).render_as_string()
    replace(server, url=url).execute("UPDATE orders SET customer = 'wrong'")


def test_behind_a_pooler_nothing_is_set_in_a_session_of_a_replica(
    rendered: Callable[[Answers], Service], cluster_of: Callable[[str], Cluster]
) -> None:
    """The role does not write there: others get the session next."""
    shop = rendered(
        {"driver": "asyncpg", "with_replicas": True, "pooler": "transaction"}
    )
    cluster, name = cluster_of("postgresql"), "behind_a_pooler"
    primary, _ = cluster.database(name)
    standby = cluster.replicas[0]
    with ExitStack() as stack:
        ways = []
        for node in (cluster.primary, standby):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            one = pgbouncer(folder, node, "1.24", default_pool_size=1)
            pooler = stack.enter_context(one)
            ways.append(pooler.through(node.verified_of(name)))
        variables = {
            "DATABASE_URL": ways[0],
            "DATABASE_DIRECT_URL": primary,
            "DATABASE_REPLICA_URLS": ways[1],
        }
        shop.migrate(**variables)
        with shop.running(**variables) as running:
            order = running.client.post("/orders", json=ORDER).json()
            running.client.cookies.clear()
            standby.catch_up()
            until_ready(running)
            assert running.client.get(f"/orders/{order['id']}").json() == order
            assert running.stop() == 0
        inside = replace(standby, url=ways[1])
        (row,) = inside.execute("SHOW default_transaction_read_only")

    assert row["default_transaction_read_only"] == "off"


@pytest.mark.parametrize("reports", [True, False])
def test_reader_of_aurora_that_does_not_report_its_lag_is_not_read_from(
    rendered: Callable[[Answers], Service],
    cluster_of: Callable[[str], Cluster],
    reports: bool,  # noqa: FBT001
) -> None:
    """The functions of Aurora, on a cluster that is none: NULL is not "no lag"."""
    shop = rendered({"driver": "asyncpg", "cloud": "aws_aurora", "with_replicas": True})
    cluster, name = cluster_of("postgresql"), f"aurora_{reports}".lower()
    primary, replicas = cluster.database(name)
    lag = "0.0::float8" if reports else "NULL::float8"
    url = make_url(cluster.primary.url).set(database=name)
    node = replace(cluster.primary, url=url.render_as_string(hide_password=False))
    node.execute(
        "CREATE FUNCTION aurora_replica_status(OUT server_id text,"
        " OUT replica_lag_in_msec float8) RETURNS SETOF record LANGUAGE sql AS"
        f" $$ SELECT 'one', {lag} $$"
    )
    node.execute(
        "CREATE FUNCTION aurora_db_instance_identifier() RETURNS text"
        " LANGUAGE sql AS $$ SELECT 'one' $$"
    )
    variables = {"DATABASE_URL": primary, "DATABASE_REPLICA_URLS": replicas[0]}
    shop.migrate(**variables)
    cluster.replicas[0].catch_up()

    def has_been_seen() -> bool:
        running.client.get("/orders")
        banned = scrape(running).sum("database_replica_bans_total", 'reason="lag"') > 0
        return banned if not reports else reads(running) > 0

    def no_probe_is_recent() -> bool:
        running.client.get("/orders")
        return fallbacks(running)["none ready"] > 0

    with shop.running(**variables) as running:
        until(has_been_seen, "the reader is known")
        went = reads(running)
        cluster.replicas[0].freeze()
        try:
            until(no_probe_is_recent, "no probe is recent")
            before = fallbacks(running)
            written = running.client.post("/orders", json=ORDER)
            mark = {HEADER: written.headers[HEADER]}
            running.client.get("/orders", headers=mark).raise_for_status()
            after = fallbacks(running)
        finally:
            cluster.replicas[0].thaw()

    assert (went > 0) is reports
    # By the clock: a probe that is awaited could not change the answer.
    assert after == before | {"behind": before["behind"] + 1}


@pytest.mark.parametrize(
    ("driver", "server"),
    [("asyncpg", "postgresql"), ("aiomysql", "mariadb"), ("asyncmy", "mysql")],
)
def test_doctor_names_role_and_lag_of_each_replica(
    routed: Callable[[str], Service],
    cluster_of: Callable[[str], Cluster],
    driver: str,
    server: str,
) -> None:
    shop, cluster = routed(driver), cluster_of(server)
    primary, urls = cluster.database(f"doctor_{driver}")
    replica, port = cluster.replicas[0], make_url(urls[0]).port
    variables = {"DATABASE_URL": primary, "DATABASE_REPLICA_URLS": ",".join(urls)}
    shop.migrate(**variables)
    well = doctor(shop, **variables)
    if server == "postgresql":
        cluster.primary.execute("CREATE ROLE reader LOGIN")
    else:
        cluster.primary.execute("CREATE USER reader")
        cluster.primary.execute(f"GRANT SELECT ON `doctor_{driver}`.* TO reader")
    for each in cluster.replicas:
        each.catch_up()
    readers = ",".join(
        make_url(url).set(username="reader").render_as_string(hide_password=False)
        for url in urls
    )
    reading = doctor(shop, **variables | {"DATABASE_REPLICA_URLS": readers})
    replica.pause()
    cluster.primary.empty("something_new")
    behind = doctor(shop, **variables)
    replica.kill()
    gone = doctor(shop, **variables)
    cluster.heal()
    wrong = doctor(shop, **variables | {"DATABASE_REPLICA_URLS": primary})
    none = doctor(shop, **variables | {"DATABASE_REPLICA_URLS": ""})

    # The administrator may write there, if it is promoted.
    level, text = well["replicas"]
    assert level == "warn"
    assert text.count("may write: log in as the reader") == len(urls)
    level, text = reading["replicas"]
    assert level == "ok"
    for url in urls:
        here = f"localhost:{make_url(url).port}"
        assert re.search(rf"{here} is a replica, lag [01]\.\d\d s", text)
    name = f"localhost:{port}"
    assert behind["replicas"][0] == "warn"
    assert f"{name} lags more than 1 s" in behind["replicas"][1]
    assert gone["replicas"][0] == "warn"
    assert gone["replicas"][1].startswith(f"{name}: ")
    assert wrong["replicas"][0] == "warn"
    assert "is a primary, and not read from" in wrong["replicas"][1]
    assert none["replicas"][0] == "ok"
    assert {report.code for report in (well, behind, gone, wrong, none)} == {0}
