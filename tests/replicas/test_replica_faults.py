"""A service with two workers and ten clients, while something happens to a replica."""

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import httpx
import pymysql
import pytest
from sqlalchemy import make_url

from tests.replicas.test_replicas import Metrics, until_ready, variables_of
from tests.support.clusters import (
    Cluster,
    MariaDBReplica,
    PostgreSQLReplica,
    Replica,
    until,
)
from tests.support.processes import children
from tests.support.servers import NETWORKED_ON
from tests.support.service import NO_TLS, ORDER, Running, Service

pytestmark = pytest.mark.boot

CLIENTS, PAUSE_SECONDS, BURST, WRITE_SECONDS = 10, 0.2, 20, 0.05
MAX_LAG_SECONDS, BAN_SECONDS = 1, 2
SLOW_SECONDS = 1
# Until a silent replica is found out: 0.25 s to the next probe, 1 s for its answer. A
# connect that had begun by then takes 2 s, and all is repeated elsewhere. The rest
# is for a machine that has other things to do; the limit of a statement is 6 s.
FOUND_OUT_SECONDS, CONNECT_SECONDS, ROOM_SECONDS = 1.25, 2, 2.5


class Answer(NamedTuple):
    began: float
    seconds: float
    was_right: bool
    status: int


@dataclass
class Load:
    """Clients that read what they know, and one that does more while it shall."""

    url: str
    orders: list[dict[str, Any]]
    answers: list[Answer] = field(default_factory=list)
    writes: bool = False
    bursts: bool = False  # of more at once than there are connections

    def __enter__(self) -> Self:
        self._ends = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_until_complete, args=(self._run(),)
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        self._thread.join()
        self._loop.close()

    def go_on(self, number: int = 40) -> None:
        """Until so many more have been answered."""
        more = len(self.answers) + number
        until(lambda: len(self.answers) >= more, "answers")

    async def _run(self) -> None:
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=30, verify=NO_TLS) as client,
            asyncio.TaskGroup() as group,
        ):
            for number in range(CLIENTS):
                group.create_task(self._read_on(client, number))
            group.create_task(self._write_on())

    async def _read_on(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._ends:
            await self._read(client, self.orders[number % len(self.orders)])
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self, client: httpx.AsyncClient, order: dict[str, Any]) -> None:
        began = time.monotonic()
        answer = await client.get(f"/orders/{order['id']}")
        seconds = time.monotonic() - began
        was_right = answer.status_code == 200 and answer.json() == order
        self.answers.append(Answer(began, seconds, was_right, answer.status_code))

    async def _write_on(self) -> None:
        async with httpx.AsyncClient(
            base_url=self.url, timeout=30, verify=NO_TLS
        ) as client:
            while not self._ends:
                if self.writes:
                    await client.post("/orders", json=ORDER)
                if self.bursts:
                    orders = BURST // len(self.orders) * self.orders
                    await asyncio.gather(*(self._read(client, o) for o in orders))
                await asyncio.sleep(WRITE_SECONDS)


class Scene(NamedTuple):
    """A replica, the database that the service uses there, and its clients."""

    cluster: Cluster
    replica: Replica
    database: str
    load: Load


Event = Callable[[Scene], Any]


@contextmanager
def killed(scene: Scene) -> Iterator[None]:
    scene.replica.kill()
    yield
    scene.replica.start()


@contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    scene.replica.freeze()
    yield
    scene.replica.thaw()


@contextmanager
def paused(scene: Scene) -> Iterator[None]:
    scene.replica.pause()
    scene.load.writes = True
    yield
    scene.replica.resume()
    scene.load.writes = False


@contextmanager
def lagging(scene: Scene) -> Iterator[None]:
    scene.replica.delay(3000)
    scene.load.writes = True
    yield
    scene.load.writes = False
    scene.replica.delay(0)


@contextmanager
def cut_off(scene: Scene) -> Iterator[None]:
    """The replica answers as ever, and hears nothing of the primary."""
    with ExitStack() as stack:
        if isinstance(scene.replica, MariaDBReplica):
            scene.replica.link.freeze()
            stack.callback(scene.replica.link.heal)
        else:
            (row,) = scene.replica.execute("SHOW primary_conninfo")
            follow(scene.replica, "host=127.0.0.1 port=1")
            stack.callback(follow, scene.replica, row["primary_conninfo"])
        scene.load.writes = True
        yield
        scene.load.writes = False


def follow(replica: Replica, connection: str) -> None:
    quoted = connection.replace("'", "''")
    replica.execute(f"ALTER SYSTEM SET primary_conninfo = '{quoted}'")
    replica.execute("SELECT pg_reload_conf()")


@contextmanager
def without_its_sessions(scene: Scene) -> Iterator[None]:
    end_sessions(scene)
    yield


def end_sessions(scene: Scene) -> None:
    if isinstance(scene.replica, PostgreSQLReplica):
        scene.replica.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"  # noqa: S608
            f" WHERE datname = '{scene.database}'"
        )
        return
    rows = scene.replica.execute(
        "SELECT id FROM information_schema.processlist"  # noqa: S608
        f" WHERE db = '{scene.database}'"
    )
    for row in rows:
        administer(scene.replica, f"KILL {row['id']}")


def administer(replica: Replica, statement: str) -> None:
    """On MariaDB, without a trace in what is replicated; the session may be gone."""
    url = make_url(replica.url)
    with (
        pymysql.connect(host=url.host, port=url.port or 0, user="root") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET sql_log_bin = 0")
        try:
            cursor.execute(statement)
        except pymysql.OperationalError as error:
            if error.args[0] != 1094:  # no such session
                raise


@contextmanager
def refusing_logins(scene: Scene) -> Iterator[None]:
    if isinstance(scene.replica, MariaDBReplica):
        users = "app@localhost, app@'%'"
        administer(scene.replica, f"ALTER USER {users} ACCOUNT LOCK")
        end_sessions(scene)
        yield
        administer(scene.replica, f"ALTER USER {users} ACCOUNT UNLOCK")
        return
    (row,) = scene.replica.execute("SHOW hba_file")
    file = Path(row["hba_file"])
    access = file.read_text()
    file.write_text(f"host {scene.database} all all reject\n{access}")
    scene.replica.execute("SELECT pg_reload_conf()")
    end_sessions(scene)
    yield
    file.write_text(access)
    scene.replica.execute("SELECT pg_reload_conf()")


# What a client of PostgreSQL says first.
HELLO = b"user\0postgres\0database\0postgres\0\0"
FEW = 10  # connections of a MariaDB: it takes no lower limit
HELLO = struct.pack("!ii", 8 + len(HELLO), 196608) + HELLO


@contextmanager
def out_of_connections(scene: Scene) -> Iterator[None]:
    url = make_url(scene.replica.url)
    number, hello = 300, HELLO
    end_sessions(scene)
    with ExitStack() as stack:
        if isinstance(scene.replica, MariaDBReplica):
            stack.enter_context(few_connections(url.port or 0, FEW))
            number, hello = FEW, b""
        for _ in range(number):
            other = socket.create_connection(("127.0.0.1", url.port or 0))
            stack.enter_context(other).sendall(hello)
        scene.load.bursts = True
        yield
        scene.load.bursts = False


@contextmanager
def few_connections(port: int, number: int) -> Iterator[None]:
    with (
        pymysql.connect(host="127.0.0.1", port=port, user="root") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(f"SET GLOBAL max_connections = {number}")
        yield
        cursor.execute("SET GLOBAL max_connections = 300")


GONE = {"refused", "unreachable"}
# In this order: the first one wants connections that are not open yet. With the
# reasons for a ban, if there must be one.
EVENTS: dict[str, tuple[Event, set[str]]] = {
    "out of connections": (out_of_connections, GONE),
    "without its sessions": (without_its_sessions, set()),
    "refusing logins": (refusing_logins, GONE),
    "killed": (killed, GONE),
    "frozen": (frozen, GONE),
    "paused": (paused, {"lag"}),
    "lagging": (lagging, {"lag"}),
    "cut off": (cut_off, {"lag"}),
}


@pytest.mark.parametrize(("driver", "server"), NETWORKED_ON)
def test_failure_of_a_replica_fails_no_read(
    routed: Callable[[str], Service],
    cluster_of: Callable[[str], Cluster],
    tmp_path: Path,
    driver: str,
    server: str,
) -> None:
    shop = routed(driver)
    cluster = cluster_of(server)
    name = f"db_{tmp_path.name.lower()}"
    variables = variables_of(cluster, name) | {
        "DATABASE_REPLICA_MAX_LAG_SECONDS": str(MAX_LAG_SECONDS),
        "PYTHONPATH": shop.changed(
            *(tmp_path / "src", "db/replicas/replica.py"),
            *("BAN_SECONDS = 10", f"BAN_SECONDS = {BAN_SECONDS}"),
        ),
    }
    shop.migrate(**variables)
    with shop.running(**variables) as running:
        orders = [running.client.post("/orders", json=ORDER).json() for _ in range(5)]
        running.client.cookies.clear()
        for replica in cluster.replicas:
            replica.catch_up()
        until_ready(running)
        workers = children(running.process.pid)
        with Load(str(running.client.base_url), orders) as load:
            scene = Scene(cluster, cluster.replicas[0], name, load)
            check_idle(running, load)
            for event, (happen, reasons) in EVENTS.items():
                check(running, scene, event, happen, reasons)
            check_all_gone(running, scene)
            assert {answer.status for answer in load.answers} == {200}
            check_primary_gone(running, scene)
        assert children(running.process.pid) == workers
        assert running.stop() == 0

    assert all(each.was_right for each in load.answers if each.status == 200)


def scrape(running: Running) -> Metrics:
    """The metrics change four times a second, and cost as much as ten reads."""
    time.sleep(0.25)
    return Metrics(running.client)


def pool_of(replica: Replica) -> str:
    return f'pool="localhost:{make_url(replica.url).port}"'


def check_idle(running: Running, load: Load) -> None:
    """A pause of all writers is no lag."""
    load.go_on(100)
    metrics = Metrics(running.client)
    lag = [metrics[key] for key in metrics if "replica_lag_seconds" in key]
    assert max(lag) < MAX_LAG_SECONDS / 2


def check(
    running: Running, scene: Scene, event: str, happen: Event, reasons: set[str]
) -> None:
    pool, load = pool_of(scene.replica), scene.load
    before, first = Metrics(running.client), len(load.answers)
    began = time.monotonic()
    with happen(scene):
        if reasons:
            until(lambda: has_banned(running, before, pool, reasons), f"{event}: ban")
        found = Metrics(running.client)
        load.go_on()
    healed = time.monotonic()
    scene.replica.catch_up()
    reads = found.sum("database_reads_total", pool)
    until(
        lambda: scrape(running).sum("database_reads_total", pool) > reads + 20,
        f"{event}: used again",
    )
    again = time.monotonic() - healed
    report(event, load.answers[first:], before, Metrics(running.client), again)
    wrong = [each for each in load.answers[first:] if not each.was_right]
    assert not wrong, (event, wrong[:5], errors(running))
    slow = [each for each in load.answers[first:] if each.seconds > SLOW_SECONDS]
    most = FOUND_OUT_SECONDS + CONNECT_SECONDS + ROOM_SECONDS
    assert all(each.seconds < most for each in slow), (event, slow)
    if happen is frozen:  # each client can meet each worker before it has found out
        late = began + FOUND_OUT_SECONDS + ROOM_SECONDS
        assert len(slow) <= 2 * CLIENTS
        # One for each on a machine that pauses; else each is slow again and again.
        assert len([each for each in slow if each.began > late]) <= CLIENTS, slow
    if reasons == {"lag"}:
        lag = found.sum("database_replica_lag_seconds", pool)
        assert lag > MAX_LAG_SECONDS, event


def errors(running: Running) -> list[str]:
    return [line for line in running.log.read_text().splitlines() if "ERROR" in line]


def has_banned(running: Running, before: Metrics, pool: str, reasons: set[str]) -> bool:
    """Both workers, as they find out for themselves."""
    now = scrape(running)
    bans = [
        sum(metrics.sum("database_replica_bans_total", pool, r) for r in reasons)
        for metrics in (before, now)
    ]
    return bans[1] - bans[0] >= 2


def report(
    event: str,
    answers: list[Answer],
    before: Metrics,
    after: Metrics,
    again: float,
) -> None:
    slow = [each.seconds for each in answers if each.seconds > SLOW_SECONDS]
    rose = {
        key.removeprefix("database_"): after[key] - before.get(key, 0)
        for key in after
        if "_total" in key and ("replica" in key or "reads" in key)
        if after[key] > before.get(key, 0)
    }
    print(
        f"{event}: {Counter(each.status for each in answers)}, slow: {len(slow)}"
        f" (most {max(each.seconds for each in answers):.2f} s),"
        f" again after {again:.1f} s, {rose}"
    )


def check_all_gone(running: Running, scene: Scene) -> None:
    for replica in scene.cluster.replicas:
        replica.kill()
    scene.load.go_on()
    before = Metrics(running.client)
    scene.load.go_on()
    time.sleep(0.3)
    after = Metrics(running.client)
    scene.cluster.heal()
    reads = [f.sum("database_reads_total", 'pool="primary"') for f in (before, after)]
    assert reads[1] - reads[0] > 20
    until(lambda: reads_no_primary(running, scene.load), "used again by both workers")


def reads_no_primary(running: Running, load: Load) -> bool:
    before = scrape(running).sum("database_reads_total", 'pool="primary"')
    load.go_on()
    return scrape(running).sum("database_reads_total", 'pool="primary"') == before


def check_primary_gone(running: Running, scene: Scene) -> None:
    before, first = Metrics(running.client), len(scene.load.answers)
    scene.cluster.primary.kill()
    scene.load.go_on(100)
    scene.cluster.heal()
    answers, after = scene.load.answers[first:], scrape(running)
    report("primary killed", answers, before, after, 0)
    # What found no replica ready, on a busy machine, had nowhere to go.
    fallbacks = [f.sum("database_replica_fallbacks_total") for f in (before, after)]
    failed = [each for each in answers if each.status != 200]
    assert {each.status for each in failed} <= {503}
    assert len(failed) <= fallbacks[1] - fallbacks[0]
