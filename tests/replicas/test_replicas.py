"""Reads go to replicas and see what was written; writes follow the primary."""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.clusters import Cluster, own_cluster, until
from tests.support.processes import children
from tests.support.proxy import Proxy
from tests.support.servers import (
    DRIVERS,
    NETWORKED,
    NETWORKED_ON,
    Server,
    usual_server,
)
from tests.support.service import NO_TLS, ORDER, Running, Service, wait_until

pytestmark = pytest.mark.boot

HEADER = "X-Read-After"
CLIENTS, PAIRS = 20, 2000
# Less than a read waits for a replica (200 ms), and more than it takes to answer.
DELAY_MILLISECONDS = 40
HEALING_SECONDS = 10
# A connection that was idle for a second is checked: is its server the primary?
IDLE_SECONDS = 1.2


def variables_of(cluster: Cluster, name: str) -> dict[str, str]:
    primary, replicas = cluster.database(name)
    return {"DATABASE_URL": primary, "DATABASE_REPLICA_URLS": ",".join(replicas)}


@pytest.fixture
def way(
    cluster_of: Callable[[str], Cluster], tmp_path: Path
) -> Callable[..., tuple[Cluster, dict[str, str]]]:
    """The cluster that a driver speaks to, and the variables of an empty database."""

    def way(driver: str, server: str = "") -> tuple[Cluster, dict[str, str]]:
        cluster = cluster_of(server or usual_server(driver))
        return cluster, variables_of(cluster, f"db_{tmp_path.name.lower()}")

    return way


class Metrics(dict[str, float]):
    """What /metrics says, by name and label."""

    def __init__(self, client: httpx.Client) -> None:
        text = client.get("/metrics").text
        found = re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE)
        super().__init__({name: float(value) for name, value in found})

    def sum(self, name: str, *words: str) -> float:
        return sum(
            value
            for key, value in self.items()
            if key.split("{")[0] == name and all(word in key for word in words)
        )


def reads(client: httpx.Client) -> tuple[float, float]:
    """How many went to the primary, and how many to replicas."""
    metrics = Metrics(client)
    everywhere = metrics.sum("database_reads_total")
    primary = metrics.sum("database_reads_total", 'pool="primary"')
    return primary, everywhere - primary


def until_ready(running: Running) -> None:
    """Until both workers read from replicas."""
    for _ in range(1000):
        before, _ = reads(running.client)
        for _ in range(10):
            running.client.get("/orders?limit=1")
        time.sleep(0.3)
        if reads(running.client)[0] == before:
            return
    raise AssertionError(running.log.read_text())


async def write_and_read(
    client: httpx.AsyncClient, *, carries_token: bool
) -> int | None:
    """Write, then read it: the status of the read."""
    written = await client.post("/orders", json=ORDER)
    if written.status_code != 201:
        return None
    client.cookies.clear()
    headers = {HEADER: written.headers[HEADER]} if carries_token else {}
    order = written.json()["id"]
    return (await client.get(f"/orders/{order}", headers=headers)).status_code


async def pairs(url: str, number: int, *, carries_token: bool) -> Counter[int | None]:
    left = iter(range(number))
    seen: Counter[int | None] = Counter()

    async def work() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30, verify=NO_TLS) as client:
            for _ in left:
                seen[await write_and_read(client, carries_token=carries_token)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(work())
    return seen


def has_missed(url: str) -> bool:
    """Whether a client without a token does not find what it has written."""
    return asyncio.run(pairs(url, 1, carries_token=False)) == {404: 1}


@pytest.mark.parametrize("driver", NETWORKED)
def test_own_tests_pass(
    routed: Callable[[str], Service], server_of: Callable[[str], Server], driver: str
) -> None:
    done = routed(driver).command("pytest", DATABASE_URL=server_of(driver).url)

    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(("driver", "server"), NETWORKED_ON)
def test_what_was_written_is_read_from_replicas_that_are_late(
    routed: Callable[[str], Service],
    way: Callable[..., tuple[Cluster, dict[str, str]]],
    tmp_path: Path,
    driver: str,
    server: str,
) -> None:
    shop, (cluster, variables) = routed(driver), way(driver, server)
    # On a machine that pauses a replica is banned now and then.
    soon = "db/replicas/replica.py", "BAN_SECONDS = 10", "BAN_SECONDS = 1"
    variables["PYTHONPATH"] = shop.changed(tmp_path / "src", *soon)
    # The highest: replicas that replay nothing stay in rotation.
    variables["DATABASE_REPLICA_MAX_LAG_SECONDS"] = "60"
    shop.migrate(**variables)
    for replica in cluster.replicas:
        replica.catch_up()
        replica.delay(DELAY_MILLISECONDS)
    with shop.running(**variables) as running:
        until_ready(running)
        url = str(running.client.base_url)
        before = reads(running.client)
        seen = asyncio.run(pairs(url, PAIRS, carries_token=True))
        wait_until(lambda: sum(reads(running.client)) >= sum(before) + PAIRS)
        metrics = Metrics(running.client)
        primary, elsewhere = (
            now - then for now, then in zip(reads(running.client), before, strict=True)
        )
        for replica in cluster.replicas:
            replica.delay(0)
            replica.pause()
        # A read that finds no replica ready, on a busy machine, goes to the primary.
        until(lambda: has_missed(url), "without the token an order is missing")
        while_paused = asyncio.run(pairs(url, CLIENTS, carries_token=True))
        assert running.stop() == 0

    print(f"{driver}: {elsewhere:g} reads of replicas, {primary:g} of the primary")
    print({k: v for k, v in metrics.items() if "replica" in k})
    assert seen == {200: PAIRS}
    assert while_paused == {200: CLIENTS}
    # Of the others, on a busy machine, the replica was late to replay or to be probed.
    assert elsewhere > PAIRS / 10


@dataclass
class Load:
    """Clients that write one order after the other, and the answers."""

    url: str
    answered: list[tuple[float, int]] = field(default_factory=list)  # when, the status
    acknowledged: set[str] = field(default_factory=set)
    problems: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    async def run(self, clients: int = 8) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._write())

    async def _write(self) -> None:
        async with httpx.AsyncClient(
            base_url=self.url, timeout=30, verify=NO_TLS
        ) as client:
            while not self.stopped:
                answer = await client.post("/orders", json=ORDER)
                self.answered.append((time.monotonic(), answer.status_code))
                if answer.status_code == 201:
                    self.acknowledged.add(answer.json()["id"])
                else:
                    self.problems[answer.json()["type"]] += 1
                    await asyncio.sleep(0.05)

    async def until(self, status: int, since: float, times: int = 20) -> float:
        """When the last of so many answers came since then."""
        while True:
            found = [at for at, each in self.answered if each == status and at > since]
            if len(found) >= times:
                return found[times - 1]
            assert time.monotonic() < since + 60, self.problems
            await asyncio.sleep(0.02)


def several_hosts(urls: list[str]) -> str:
    """One URL for servers of which one is the primary."""
    first, *others = map(make_url, urls)
    text = first.render_as_string(hide_password=False)
    own = f"{first.host}:{first.port}"
    return text.replace(own, ",".join([own, *(f"{u.host}:{u.port}" for u in others)]))


def end_primary(cluster: Cluster, dialect: str) -> None:
    """Without a loss: what was acknowledged is on the replica that will be promoted."""
    if dialect == "postgresql":
        cluster.primary.kill()  # it has waited for both
        return
    # It lives on, and refuses writes: connections to it are of no use any more.
    cluster.primary.execute("SET GLOBAL read_only = 1")
    cluster.replicas[0].catch_up()


@pytest.mark.parametrize(("driver", "server"), NETWORKED_ON)
def test_writes_follow_the_primary_and_none_is_lost(
    routed: Callable[[str], Service], driver: str, server: str
) -> None:
    shop, dialect = routed(driver), DRIVERS[driver]["dialect"]
    with own_cluster(server) as cluster:
        primary, replicas = cluster.database("shop")
        variables = {
            "DATABASE_URL": several_hosts([primary, replicas[0]]),
            "DATABASE_REPLICA_URLS": ",".join(replicas),
        }
        shop.migrate(**variables)
        if dialect == "postgresql":
            cluster.primary.execute(
                "ALTER SYSTEM SET synchronous_standby_names = 'ANY 2 (*)'"
            )
            cluster.primary.execute("SELECT pg_reload_conf()")
        with shop.running(**variables) as running:
            workers = children(running.process.pid)
            load = Load(str(running.client.base_url))

            async def promote() -> float:
                writing = asyncio.create_task(load.run())
                await load.until(201, since=time.monotonic(), times=100)
                await asyncio.to_thread(end_primary, cluster, dialect)
                await load.until(503, since=time.monotonic(), times=1)
                await asyncio.to_thread(cluster.replicas[0].promote)
                promoted = time.monotonic()
                works = await load.until(201, since=promoted)
                await load.until(201, since=works, times=200)
                load.stopped = True
                await writing
                return promoted

            promoted = asyncio.run(promote())
            late = max(at - promoted for at, status in load.answered if status != 201)
            assert children(running.process.pid) == workers
            # Those go by way of the first host, which is not the primary any more.
            shop.migrate(**variables)
            url = f"{running.client.base_url}/orders/export"
            # From each worker, also from one that has written nothing since.
            exports = [
                httpx.get(url, timeout=30, verify=NO_TLS).text for _ in range(10)
            ]
            new = make_url(replicas[0])
            here = f'host="{new.host}:{new.port}"'
            assert Metrics(running.client).sum("database_primary", here) == 1
            assert running.stop() == 0

    old = make_url(primary)
    moved = f"primary is {new.host}:{new.port} now, was {old.host}:{old.port}"
    assert moved in running.log.read_text()
    print(f"{driver}: last failure {late:.2f} s after the promotion, {load.problems}")
    assert late < HEALING_SECONDS
    expected = {"urn:problem:unavailable", "urn:problem:busy"}
    if dialect == "postgresql":  # killed in the midst of commits
        expected.add("urn:problem:outcome-unknown")
    assert load.problems.keys() <= expected
    for export in exports:
        assert load.acknowledged <= {row.split(",")[0] for row in export.splitlines()}


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("driver", ["asyncpg", "asyncmy"])
def test_pool_gives_up_a_server_that_only_reads(
    routed: Callable[[str], Service],
    way: Callable[[str], tuple[Cluster, dict[str, str]]],
    tmp_path: Path,
    driver: str,
    leaves: bool,  # noqa: FBT001
) -> None:
    """As where a name leads to the old primary for a while, which is a replica now."""
    shop, (cluster, variables) = routed(driver), way(driver)
    shop.migrate(**variables)
    (replica, *_), primary = cluster.replicas, cluster.primary
    replica.catch_up()
    url = make_url(variables["DATABASE_URL"])
    changes = {"WEB_CONCURRENCY": "1"}
    if not leaves:
        line = "not is_read_only(context.original_exception):"
        changes["PYTHONPATH"] = shop.changed(
            *(tmp_path / "src", "db/engine/validation.py"), *(line, "True:")
        )
        limits = tmp_path / "src" / "shop" / "db" / "config" / "limits.py"
        limits.write_text(
            limits.read_text().replace("IDLE_SECONDS = 1\n", "IDLE_SECONDS = 3600\n")
        )
    with Proxy("127.0.0.1", replica.daemon.port) as name:
        through = url.set(port=name.port).render_as_string(hide_password=False)
        with shop.running(DATABASE_URL=through, **changes) as running:
            refused = running.client.post("/orders", json=ORDER)
            name.lead_to("127.0.0.1", primary.daemon.port)
            statuses = [
                running.client.post("/orders", json=ORDER).status_code for _ in range(5)
            ]

    assert (refused.status_code, refused.json()["type"]) == (
        503,
        "urn:problem:unavailable",
    )
    assert statuses == ([201] * 5 if leaves else [503] * 5)


@pytest.mark.parametrize("leaves", [True, False])
@pytest.mark.parametrize("driver", ["asyncpg", "asyncmy"])
def test_reads_leave_a_primary_that_has_become_a_replica(
    routed: Callable[[str], Service],
    way: Callable[[str], tuple[Cluster, dict[str, str]]],
    tmp_path: Path,
    driver: str,
    leaves: bool,  # noqa: FBT001
) -> None:
    """The old primary lives on and answers; without a write no error says its role."""
    shop, (cluster, variables) = routed(driver), way(driver)
    shop.migrate(**variables)
    (replica, *_), primary = cluster.replicas, cluster.primary
    replica.catch_up()
    replica.pause()  # what it has is old from now on
    url = make_url(variables["DATABASE_URL"])
    changes = {"WEB_CONCURRENCY": "1"}
    if not leaves:
        line = "if not is_primary:\n        address"
        changes["PYTHONPATH"] = shop.changed(
            *(tmp_path / "src", "db/replicas/failover.py"),
            *(line, "if False:\n        address"),
        )
    with Proxy("127.0.0.1", replica.daemon.port) as name:
        through = url.set(port=name.port).render_as_string(hide_password=False)
        with (
            shop.running(DATABASE_URL=variables["DATABASE_URL"]) as writing,
            shop.running(DATABASE_URL=through, **changes) as reading,
        ):
            assert reading.client.get("/orders").json()["items"] == []
            name.lead_to("127.0.0.1", primary.daemon.port)
            assert writing.client.post("/orders", json=ORDER).status_code == 201
            time.sleep(IDLE_SECONDS)
            found = reading.client.get("/orders").json()["items"]

    assert len(found) == (1 if leaves else 0)


# Of the service, and of libpq.
CHECKS_OF_A_HOST = {
    False: ("if _is_primary(dialect, connection):", "if True:"),
    True: ('"target_session_attrs": "primary"', '"target_session_attrs": "any"'),
}


@pytest.mark.parametrize("checks", [True, False])
@pytest.mark.parametrize("driver", NETWORKED)
def test_host_that_is_a_replica_is_passed_by(
    routed: Callable[[str], Service],
    way: Callable[[str], tuple[Cluster, dict[str, str]]],
    tmp_path: Path,
    driver: str,
    checks: bool,  # noqa: FBT001
) -> None:
    shop, (cluster, variables) = routed(driver), way(driver)
    shop.migrate(**variables)
    cluster.replicas[0].catch_up()
    replica = variables["DATABASE_REPLICA_URLS"].split(",")[0]
    changes = {}
    if not checks:
        line, other = CHECKS_OF_A_HOST[driver == "psycopg"]
        changes["PYTHONPATH"] = shop.changed(
            *(tmp_path / "src", "db/replicas/hosts.py"), *(line, other)
        )
    hosts = several_hosts([replica, variables["DATABASE_URL"]])
    with shop.running(DATABASE_URL=hosts, WEB_CONCURRENCY="1", **changes) as running:
        status = running.client.post("/orders", json=ORDER).status_code

    assert status == (201 if checks else 503)


# The time for all hosts, of which the first one takes 2 s.
ENOUGH = {
    "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "2",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "3",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "6",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "2",
}
# libpq gives each host 2 s at least: the silent one uses up the time of a checkout.
TOO_LITTLE = {
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "1.5",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "0.5",
}


def reads_beside_a_silent_host(first: str) -> dict[str, Any]:
    reads = [first, "well", "well"]
    return {"reads": reads, "late": False, "tried": 1, "tried since": 0}


@pytest.mark.parametrize("driver", NETWORKED)
def test_silent_host_costs_one_connect_timeout(
    routed: Callable[[str], Service], server_of: Callable[[str], Server], driver: str
) -> None:
    url = {"DATABASE_URL": server_of(driver).url}
    done = routed(driver).program("silent_first_host", **url, **ENOUGH)

    assert json.loads(done.stdout or "0") == reads_beside_a_silent_host("well")


def test_silent_host_that_uses_up_the_time_is_the_last_one_then(
    routed: Callable[[str], Service], server_of: Callable[[str], Server]
) -> None:
    url = {"DATABASE_URL": server_of("psycopg").url}
    done = routed("psycopg").program("silent_first_host", **url, **TOO_LITTLE)

    assert json.loads(done.stdout or "0") == reads_beside_a_silent_host("unavailable")


# What follows a silent host, by driver, with the code of it and that without.
AFTER_A_SILENT_HOST = {
    "next host": ("asyncpg", "well", "first = (tried + 1) % len(hosts)", "pass"),
    "next host of MySQL": (
        *("aiomysql", "well"),
        *("first = (tried + 1) % len(hosts)", "pass"),
    ),
    "good host first": (
        *("psycopg", "well"),
        "hosts.sort(key=lambda each: (each.host, each.port) != (info.host, info.port))",
        "pass",
    ),
    "time for a host": (
        *("psycopg", "well"),
        '"connect_timeout": max(LEAST_SECONDS, round(limits.connect_timeout_seconds)),',
        "",
    ),
    "time for all": (
        *("psycopg", "well"),
        "replace(limits, connect_timeout_seconds=limits.acquire_timeout_seconds)",
        "limits",
    ),
    "last one then": (
        *("psycopg", "unavailable"),
        *("hosts.append(hosts.pop(0))", "pass"),
    ),
}


@pytest.mark.parametrize("name", AFTER_A_SILENT_HOST)
def test_silent_host_would_cost_more(
    routed: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path: Path,
    name: str,
) -> None:
    driver, first, code, without = AFTER_A_SILENT_HOST[name]
    shop = routed(driver)
    source = shop.changed(*(tmp_path / "src", "db/replicas/hosts.py"), *(code, without))
    done = shop.program(
        "silent_first_host",
        PYTHONPATH=source,
        DATABASE_URL=server_of(driver).url,
        **(ENOUGH if first == "well" else TOO_LITTLE),
    )

    assert done.stdout, done.stderr
    assert json.loads(done.stdout) != reads_beside_a_silent_host(first)
