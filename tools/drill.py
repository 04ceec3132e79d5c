"""A fault drill on a service with everything on, under a real Prometheus.

Each fault fires its alerts, is higher in its panel than before, and is named by a line
of the log and by a span. Prints when each alert has fired, and draws the dashboard with
what was measured: `python -m tools.drill template/docs/dashboard.png`. Each duration of
the rules is a twentieth.
"""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import asyncpg
import httpx
import yaml
from sqlalchemy import make_url

from tests.support.clusters import Cluster, postgresql_cluster
from tests.support.collector import collecting
from tests.support.processes import children
from tests.support.rendering import ROOT, isolate, snapshot
from tests.support.servers import Redis, unpacked
from tests.support.service import ORDER, PROGRAMS, Running, copy, free_port
from tools.dashboard import draw, measured

ANSWERS = {
    "project_name": "shop",
    "driver": "asyncpg",
    "with_replicas": True,
    "with_celery": True,
    "with_tracing": True,
}
FASTER = 20
SECONDS = {"s": 1, "m": 60, "h": 3600}
PROMETHEUS = ROOT / ".servers" / "prometheus"
QUIET_SECONDS, CLIENTS = 25, 24
# Until the last effect of a fault has left the range of a query.
SETTLE_SECONDS = 12


class Expected(NamedTuple):
    """What names a fault: alerts, the title of a panel, words of a line of the log, and
    a span.
    """

    alerts: set[str]
    panel: str
    words: str
    # Without one: a task whose process was killed. The parent logs it with the trace of
    # the request that has published it.
    span: "Named | None" = None


class Named(NamedTuple):
    """A span by its name, the least seconds that it takes, and an attribute."""

    name: str
    seconds: float = 0
    attribute: str = ""
    value: str = ""  # a pattern

    def is_found_in(self, span: dict[str, Any]) -> bool:
        found = span["attributes"].get(self.attribute, "")
        is_right = span["name"] == self.name and re.search(self.value, str(found))
        return bool(is_right) and span["seconds"] >= self.seconds


EXPECTED = {
    "slow route": Expected(
        {"SlowRequests"},
        "Duration by route, 1 in 100 takes longer",
        r'POST /orders 201.*"duration_ms": \d{4}',
        Named("INSERT orders", 1),
    ),
    "pool exhausted": Expected(
        {"PoolSaturated", "PoolQueue", "CheckoutsRejected"},
        "Checkouts in the queue",
        r"connection pool rejected \d+ checkouts",
        Named("queue", 1),
    ),
    "replica lags": Expected(
        {"ReplicaLag", "ReplicaBanned"},
        "Replication lag",
        r"banned for 10 s \(lag\)",
        Named("choose replica", 0, "db.replicas.unhealthy", ": lag"),
    ),
    "worker killed": Expected(
        {"WorkerEnded"},
        "Workers that ended",
        "was sent SIGKILL",
        Named("start", 0, "process.predecessor.pid", r"\d"),
    ),
    "task killed": Expected(
        {"TasksFailed"}, "Attempts by outcome", "was killed with its process"
    ),
    "primary moved": Expected(
        {"PrimaryMoved"},
        "Processes by primary",
        "primary is .* now, was ",
        Named("connect"),
    ),
}
Bands = dict[str, tuple[float, float]]


def faster(rules: str) -> str:
    """Durations of ranges and of `for`, so that an hour takes 3 minutes."""

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * SECONDS[found[3]] / FASTER
        return f"{found[1]}{max(round(seconds), 3)}s"

    return re.sub(r"(\[|for: )(\d+)([smh])\b", divide, rules)


@contextmanager
def prometheus(folder: Path, rules: str, targets: list[str]) -> Iterator[httpx.Client]:
    folder.mkdir()
    (folder / "rules.yaml").write_text(faster(rules))
    scrape = {"job_name": "shop", "static_configs": [{"targets": targets}]}
    every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration = {
        "global": every,
        "rule_files": ["rules.yaml"],
        "scrape_configs": [scrape],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    address = f"127.0.0.1:{free_port()}"
    options = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    )
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*unpacked(PROMETHEUS, "prometheus"), *options], stdout=log, stderr=log
        )
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30) as client:
            until(lambda: client.get("/-/ready").is_success)
            yield client
    finally:
        process.terminate()
        process.wait()


def until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with suppress(httpx.TransportError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def clients(url: str) -> Iterator[None]:
    """Read and write orders, without a pause while the service is slow."""
    stop = asyncio.Event()

    async def use(client: httpx.AsyncClient) -> None:
        while not stop.is_set():
            for call in (
                client.get("/orders"),
                client.get("/orders"),
                client.post("/orders", json=ORDER),
            ):
                with suppress(httpx.TransportError):
                    await call
                await asyncio.sleep(0.3)

    async def run() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            await asyncio.gather(*(use(client) for _ in range(CLIENTS)))

    thread = Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def lock(url: str, seconds: float) -> None:
    """Lock the table of the orders against writes."""

    async def hold() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await connection.execute("LOCK TABLE orders IN EXCLUSIVE MODE")
            await asyncio.sleep(seconds)
        await connection.close()

    asyncio.run(hold())


def provoke(
    cluster: Cluster, database: str, running: Running, crash: Callable[[], object]
) -> Bands:
    """The faults one after the other; when each began and ended."""
    bands: Bands = {}
    standby, next_primary = cluster.replicas
    primary = cluster.primary.on(database).url

    @contextmanager
    def fault(name: str) -> Iterator[None]:
        began = time.time()
        print(f"{name} ...", flush=True)
        yield
        bands[name] = (began, time.time())
        time.sleep(QUIET_SECONDS)

    time.sleep(QUIET_SECONDS)
    with fault("slow route"):
        for _ in range(12):
            lock(primary, 1.5)
            time.sleep(0.3)
    with fault("pool exhausted"):
        lock(primary, 30)
    with fault("replica lags"):
        standby.delay(8000)
        time.sleep(25)
        standby.delay(0)
    with fault("worker killed"):
        os.kill(min(children(running.process.pid)), signal.SIGKILL)
    with fault("task killed"):
        crash()
    with fault("primary moved"):
        cluster.primary.kill()
        next_primary.promote()
        time.sleep(10)
    return bands


def fired(ask: httpx.Client, began: float, end: float) -> dict[str, float]:
    """When each alert has fired first."""
    span: dict[str, float | str] = {"start": began, "end": end, "step": "1"}
    span["query"] = 'ALERTS{alertstate="firing"}'
    answer = ask.get("/api/v1/query_range", params=span).json()
    found: dict[str, float] = {}
    for series in answer["data"]["result"]:
        name, first = series["metric"]["alertname"], float(series["values"][0][0])
        found[name] = min(found.get(name, first), first)
    return found


def main() -> None:
    if not shutil.which("chromium"):
        sys.exit("Please install chromium: it draws the picture.")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder = Path(temporary)
        folder.chmod(0o755)  # the database server has a user of its own
        os.environ.update(isolate(folder / "home"))
        shop = copy(snapshot(folder / "template"), folder / "shop", ANSWERS)
        shop.install()
        (folder / "cluster").mkdir(mode=0o755)
        cluster = stack.enter_context(postgresql_cluster(folder / "cluster"))
        traces = stack.enter_context(collecting(shop, folder))
        redis = stack.enter_context(Redis(folder / "redis"))
        redis.start()
        url, replicas = cluster.database("shop")
        hosts = [make_url(each) for each in (url, replicas[1])]
        both = ",".join(f"{each.host}:{each.port}" for each in hosts)
        port, scraped = free_port(), free_port()
        variables = {
            "CELERY_BROKER_URL": redis.url,
            "CELERY_METRICS_PORT": str(scraped),
            "DATABASE_POOL_SIZE": "3",
            "DATABASE_REPLICA_URLS": ",".join(replicas),
            **traces.endpoint,
            "OTEL_TRACES_SAMPLER": "always_on",
            "DATABASE_URL": url.replace(f"{hosts[0].host}:{hosts[0].port}", both),
            "PORT": str(port),
            "PYTHONPATH": f"{shop.folder}/src:{PROGRAMS}",
        }
        shop.make("migrate", **variables | {"DATABASE_URL": url})
        rules = (shop.folder / "deploy" / "monitoring" / "alerts.yaml").read_text()
        targets = [f"127.0.0.1:{each}" for each in (port, scraped)]
        running = stack.enter_context(shop.running(**variables))
        options = ("--include=celery_tasks",)
        worker = stack.enter_context(shop.working(*options, **variables))
        stack.enter_context(shop.working(command="beat", **variables))
        ask = stack.enter_context(prometheus(folder / "prometheus", rules, targets))
        stack.enter_context(clients(f"http://127.0.0.1:{port}"))
        began = time.time()
        bands = provoke(
            cluster,
            "shop",
            running,
            lambda: shop.program("celery_tasks", "1", "crash", **variables),
        )
        end = time.time()
        alerts = fired(ask, began, end)
        for name, at in sorted(alerts.items(), key=lambda each: each[1]):
            print(f"{at - began:5.0f} s  {name}")
        path = shop.folder / "deploy" / "monitoring" / "dashboard.json"
        dashboard = json.loads(path.read_text())
        draw(dashboard, ask, bands, Path(sys.argv[1]))
        panels = {each["title"]: each for each in dashboard["panels"]}
        logs = running.log.read_text() + worker.log.read_text()
        spans = traces.spans()
        missing: list[str] = []
        for name, expected in EXPECTED.items():
            silent = expected.alerts - alerts.keys()
            missing += [f"{name}: {alert} has not fired" for alert in silent]
            if not is_shown(ask, panels[expected.panel], name, bands):
                missing.append(f"{name}: the panel {expected.panel} is no higher")
            message, span = named(expected, logs, spans)
            missing += [] if message else [f"{name}: no line {expected.words}"]
            missing += [] if span else [f"{name}: no span {expected.span}"]
            print(f"{name}: {message} ({span})")
        if missing:
            sys.exit("\n".join(missing))


def is_shown(
    ask: httpx.Client, panel: dict[str, Any], fault: str, bands: Bands
) -> bool:
    """Whether a series of the panel is higher than in each quiet time before."""
    began, end = bands[fault]
    first = min(each for each, _ in bands.values()) - QUIET_SECONDS
    last = end + SETTLE_SECONDS
    for points in measured(ask, panel, (first, last)).values():
        during = [value for at, value in points if began <= at]
        quiet = [
            value
            for at, value in points
            if at < began
            and not any(a <= at <= b + SETTLE_SECONDS for a, b in bands.values())
        ]
        if during and max(during) > max(quiet, default=0):
            return True
    return False


def named(expected: Expected, logs: str, spans: list[Any]) -> tuple[str, str]:
    """A message of the log and a span that name the cause; empty if there is none."""
    lines = [each for each in logs.splitlines() if re.search(expected.words, each)]
    records = [json.loads(each) for each in lines]
    message = records[0]["message"] if records else ""
    if not expected.span:
        return message, "no trace"
    traces = {each["trace_id"] for each in records if "trace_id" in each}
    for each in filter(expected.span.is_found_in, spans):
        if not traces or each["trace"] in traces:
            what = each["attributes"].get(expected.span.attribute, "")
            name, seconds = f"{each['name']} {what}", each["seconds"]
            return message, f"{name}, {seconds:.1f} s, trace {each['trace']}"
    return message, ""


if __name__ == "__main__":
    main()
