"""Reads go to replicas, see what was written, and notice no replica's trouble."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from tests.clusters import Cluster, own_cluster
from tests.rendering import Answers
from tests.servers import DRIVERS
from tests.service import ORDER, Running, Service

pytestmark = pytest.mark.boot

NETWORKED = ("asyncpg", "psycopg", "aiomysql", "asyncmy")
TOKEN = "X-Read-After"
CLIENTS, PAIRS = 20, 2000
# Less than a read waits for a replica (200 ms), and more than it takes to answer.
DELAY_MILLISECONDS = 40


@pytest.fixture(scope="session")
def routed(rendered: Callable[[Answers], Service]) -> Callable[[str], Service]:
    """The service on a driver, with replicas."""
    return lambda driver: rendered({"driver": driver, "with_replicas": True})


def variables_of(cluster: Cluster, name: str) -> dict[str, str]:
    primary, replicas = cluster.database(name)
    return {"DATABASE_URL": primary, "DATABASE_REPLICA_URLS": ",".join(replicas)}


@pytest.fixture
def way(
    cluster_of: Callable[[str], Cluster], tmp_path: Path
) -> Callable[[str], tuple[Cluster, dict[str, str]]]:
    """The cluster that a driver speaks to, and the variables of an empty database."""

    def way(driver: str) -> tuple[Cluster, dict[str, str]]:
        cluster = cluster_of(DRIVERS[driver]["dialect"])
        return cluster, variables_of(cluster, f"db_{tmp_path.name.lower()}")

    return way


class Figures(dict[str, float]):
    """What /metrics says, by name and label."""

    def __init__(self, client: httpx.Client) -> None:
        text = client.get("/metrics").text
        found = re.findall(r'^(\w+(?:\{[^}]*\})?) (\S+)$', text, re.MULTILINE)
        super().__init__({name: float(value) for name, value in found})

    def sum(self, name: str, *words: str) -> float:
        return sum(
            value
            for key, value in self.items()
            if key.split("{")[0] == name and all(word in key for word in words)
        )


def reads(client: httpx.Client) -> tuple[float, float]:
    """How many went to the primary, and how many to replicas."""
    figures = Figures(client)
    everywhere = figures.sum("database_reads_total")
    primary = figures.sum("database_reads_total", 'pool="primary"')
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
    headers = {TOKEN: written.headers[TOKEN]} if carries_token else {}
    order = written.json()["id"]
    return (await client.get(f"/orders/{order}", headers=headers)).status_code


async def pairs(url: str, number: int, *, carries_token: bool) -> Counter[int | None]:
    left = iter(range(number))
    seen: Counter[int | None] = Counter()

    async def work() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            for _ in left:
                seen[await write_and_read(client, carries_token=carries_token)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CLIENTS):
            group.create_task(work())
    return seen


@pytest.mark.parametrize("driver", NETWORKED)
def test_what_was_written_is_read_from_replicas_that_are_late(
    routed: Callable[[str], Service],
    way: Callable[[str], tuple[Cluster, dict[str, str]]],
    driver: str,
) -> None:
    shop, (cluster, variables) = routed(driver), way(driver)
    shop.make("migrate", **variables)
    for replica in cluster.replicas:
        replica.catch_up()
        replica.delay(DELAY_MILLISECONDS)
    with shop.running(**variables) as running:
        until_ready(running)
        url = str(running.client.base_url)
        before = reads(running.client)
        seen = asyncio.run(pairs(url, PAIRS, carries_token=True))
        time.sleep(0.3)
        figures = Figures(running.client)
        primary, elsewhere = (
            now - then for now, then in zip(reads(running.client), before, strict=True)
        )
        unseen = asyncio.run(pairs(url, PAIRS // 10, carries_token=False))
        assert running.stop() == 0

    print(f"{driver}: {elsewhere:g} reads of replicas, {primary:g} of the primary")
    print({k: v for k, v in figures.items() if "replica" in k})
    assert seen == {200: PAIRS}
    assert unseen[404] > 0, "without the token it would be the same"
    assert elsewhere > PAIRS * 0.9
