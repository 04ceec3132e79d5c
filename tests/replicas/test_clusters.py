"""Each change of a node of a cluster, as clients see it."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from typing import Any, NamedTuple

import asyncpg
import pymysql
import pytest
from sqlalchemy import make_url

from tests.support.clusters import CLUSTERS, Cluster, Node, Replica, own_cluster, until
from tests.support.servers import SERVERS_OF

pytestmark = pytest.mark.boot

Ask = Callable[[str], list[Any]]

REFUSED = (asyncpg.ReadOnlySQLTransactionError, pymysql.OperationalError)
BROKEN = (
    *(ConnectionError, pymysql.OperationalError),
    *(asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError),
)
# Longer than an answer takes, and shorter than any timeout.
SILENCE_SECONDS = 0.5


@contextmanager
def postgresql_session(url: str) -> Iterator[Ask]:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        try:
            yield lambda statement: [
                tuple(row) for row in runner.run(connection.fetch(statement))
            ]
        finally:
            connection.terminate()


@contextmanager
def mysql_session(url: str) -> Iterator[Ask]:
    parts = make_url(url)
    connection = pymysql.connect(
        host=parts.host,
        port=parts.port,
        user=parts.username,
        database=parts.database,
        autocommit=True,
        ssl_ca=parts.query["sslrootcert"],
        ssl_verify_identity=True,
    )

    def ask(statement: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    try:
        yield ask
    finally:
        connection._force_close()


def session(url: str) -> AbstractContextManager[Ask]:
    """A session as an application has it: with TLS, and closed abruptly."""
    return (mysql_session if url.startswith("mysql") else postgresql_session)(url)


class Table(NamedTuple):
    """A table of one column in a database of its own."""

    primary: str
    replicas: list[str]

    def write(self, value: int) -> None:
        with session(self.primary) as ask:
            ask(f"INSERT INTO written VALUES ({value})")  # noqa: S608

    def read(self, url: str) -> list[int]:
        with session(url) as ask:
            return [value for (value,) in ask("SELECT * FROM written ORDER BY 1")]


names = (f"written_{number}" for number in count())


def table_of(cluster: Cluster) -> Table:
    table = Table(*cluster.database(next(names)))
    with session(table.primary) as ask:
        ask("CREATE TABLE written (value INTEGER PRIMARY KEY)")
    for replica in cluster.replicas:
        replica.catch_up()
    return table


@pytest.fixture(params=CLUSTERS)
def cluster(
    cluster_of: Callable[[str], Cluster], request: pytest.FixtureRequest
) -> Cluster:
    return cluster_of(request.param)


@pytest.fixture
def table(cluster: Cluster) -> Table:
    return table_of(cluster)


@pytest.fixture
def replica(cluster: Cluster) -> Replica:
    return cluster.replicas[0]


@pytest.fixture(params=["primary", "replica"])
def node(cluster: Cluster, request: pytest.FixtureRequest) -> Node:
    return cluster.primary if request.param == "primary" else cluster.replicas[0]


def is_encrypted(ask: Ask) -> bool:
    try:
        rows = ask("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    except pymysql.ProgrammingError:
        rows = [row[1:] for row in ask("SHOW STATUS LIKE 'ssl_cipher'")]
    return bool(rows[0][0])


def test_replicas_have_what_was_written_and_refuse_writes(
    cluster: Cluster, table: Table
) -> None:
    table.write(1)
    for replica, url in zip(cluster.replicas, table.replicas, strict=True):
        replica.catch_up()

        assert table.read(url) == [1]
        with session(url) as ask:
            assert is_encrypted(ask)
            with pytest.raises(REFUSED, match="read-only"):
                ask("INSERT INTO written VALUES (2)")


def test_database_is_empty_each_time(cluster: Cluster) -> None:
    for _ in range(2):
        for url in cluster.database("again")[1]:
            with session(url) as ask, pytest.raises(Exception, match="written"):
                ask("SELECT * FROM written")
        with session(cluster.primary.verified_of("again")) as ask:
            ask("CREATE TABLE written (value INTEGER PRIMARY KEY)")


def test_paused_replica_replays_what_it_received_when_it_is_resumed(
    table: Table, replica: Replica
) -> None:
    replica.pause()
    table.write(1)
    time.sleep(SILENCE_SECONDS)
    assert table.read(table.replicas[0]) == []
    replica.resume()
    replica.catch_up()

    assert table.read(table.replicas[0]) == [1]


@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_delayed_replica_is_behind_by_as_much(
    table: Table, replica: Replica, seconds: float
) -> None:
    replica.delay(int(seconds * 1000))
    started = time.monotonic()
    table.write(1)
    table.write(2)
    until(lambda: table.read(table.replicas[0]) == [1, 2], "replayed")
    after = time.monotonic() - started
    replica.delay(0)
    table.write(3)
    replica.catch_up()

    assert seconds <= after < seconds + 10
    assert table.read(table.replicas[0]) == [1, 2, 3]


def test_frozen_node_says_nothing_until_it_is_thawed(node: Node) -> None:
    def ask_anew() -> list[Any]:
        with session(node.verified) as ask:
            return ask("SELECT 1")

    with session(node.verified) as ask, ThreadPoolExecutor() as pool:
        node.freeze()
        asked = [pool.submit(ask, "SELECT 1"), pool.submit(ask_anew)]
        time.sleep(SILENCE_SECONDS)
        assert [each.done() for each in asked] == [False, False]
        node.thaw()

        assert [each.result(timeout=10) for each in asked] == [[(1,)]] * 2


@pytest.mark.parametrize("frozen", [False, True])
def test_killed_node_breaks_connections_and_refuses_them_until_it_is_started(
    cluster: Cluster,
    table: Table,
    node: Node,
    frozen: bool,  # noqa: FBT001
) -> None:
    table.write(1)
    with session(node.verified) as ask:
        if frozen:
            node.freeze()
        node.kill()
        with pytest.raises(BROKEN):
            ask("SELECT 1")
    with closing(socket.socket()) as connection:
        assert connection.connect_ex(("127.0.0.1", node.daemon.port)) != 0
    if node is not cluster.primary:
        table.write(2)
    node.start()
    table.write(3)

    for replica, url in zip(cluster.replicas, table.replicas, strict=True):
        replica.catch_up()
        assert table.read(url) == table.read(table.primary)


@pytest.mark.parametrize("name", CLUSTERS)
def test_promoted_replica_takes_writes_ever_after(name: str) -> None:
    with own_cluster(name) as cluster:
        table, (replica, *_) = table_of(cluster), cluster.replicas
        table.write(1)
        replica.catch_up()
        replica.pause()
        table.write(2)
        time.sleep(SILENCE_SECONDS)
        cluster.primary.kill()
        replica.promote()
        table = table._replace(primary=table.replicas[0])
        table.write(3)
        replica.kill()
        replica.start()
        table.write(4)

        assert table.read(table.primary) == [1, 2, 3, 4], "also what it had received"


def test_healed_cluster_replicates(cluster: Cluster, table: Table) -> None:
    cluster.replicas[0].delay(2000)
    cluster.replicas[0].pause()
    cluster.replicas[0].freeze()
    cluster.replicas[-1].freeze()
    cluster.primary.kill()
    cluster.heal()
    table.write(1)

    for replica, url in zip(cluster.replicas, table.replicas, strict=True):
        replica.catch_up()
        assert table.read(url) == [1]


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_ends_with_all_its_nodes(name: str) -> None:
    with own_cluster(name) as cluster:
        nodes = [cluster.primary, *cluster.replicas]
        nodes[0].freeze()
        nodes[1].kill()

    assert not any(node.daemon.is_running for node in nodes)


@pytest.mark.parametrize("name", SERVERS_OF["mysql"])
def test_application_may_do_nothing_to_the_server(
    cluster_of: Callable[[str], Cluster], name: str
) -> None:
    """Else it could write on a replica."""
    with session(cluster_of(name).primary.verified) as ask:
        assert ask("SELECT CURRENT_USER()") == [("app@localhost",)]
        with pytest.raises(pymysql.OperationalError, match="Access denied"):
            ask("SET GLOBAL read_only = 0")
