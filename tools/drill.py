"""A fault drill on a service with everything on, under a real Prometheus.

Prints when each alert has fired, and draws the dashboard with what was measured:
`python -m tools.drill docs/dashboard.png`. Every duration of the rules is a twentieth.
"""

import asyncio
import gzip
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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import httpx
import yaml
from sqlalchemy import make_url

from tests.support.clusters import Cluster, postgresql_cluster
from tests.support.processes import children
from tests.support.rendering import ROOT, isolate, snapshot
from tests.support.servers import Redis, unpacked
from tests.support.service import ORDER, PROGRAMS, Running, copy, free_port
from tools.dashboard import draw

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
QUIET_SECONDS, CLIENTS = 25, 16
# The alerts of each fault, and words of the record of the log that names the cause.
EXPECTED = {
    "slow route": ({"SlowRequests"}, r'POST /orders 201.*"duration_ms": \d{4}'),
    "pool exhausted": (
        {"PoolSaturated", "PoolQueue", "CheckoutsRejected"},
        "busy: ",
    ),
    "replica lags": ({"ReplicaLag", "ReplicaBanned"}, r"banned for 10 s \(lag\)"),
    "worker killed": ({"WorkerEnded"}, "was sent SIGKILL"),
    "task killed": ({"TasksFailed"}, "was killed with its process"),
    "primary moved": ({"PrimaryMoved"}, "primary is .* now, was "),
}
Bands = dict[str, tuple[float, float]]


def faster(rules: str) -> str:
    """Durations of ranges and of `for`, so that an hour takes 3 minutes."""

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * SECONDS[found[3]] / FASTER
        return f"{found[1]}{max(round(seconds), 3)}s"

    return re.sub(r"(\[|for: )(\d+)([smh])\b", divide, rules)


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP, and keeps their bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Receiver)
        self.received: list[bytes] = []
        Thread(target=self.serve_forever, daemon=True).start()


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Content-Encoding"] == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, Collector)
        self.server.received.append(body)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


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
        traces = stack.enter_context(Collector())
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
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{traces.server_port}",
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
        dashboard = shop.folder / "deploy" / "monitoring" / "dashboard.json"
        draw(json.loads(dashboard.read_text()), ask, bands, Path(sys.argv[1]))
        logs = running.log.read_text() + worker.log.read_text()
        for name, (names, words) in EXPECTED.items():
            records = [each for each in logs.splitlines() if re.search(words, each)]
            assert records, f"{name} is not in the log"
            record = json.loads(records[0])
            trace = record.get("trace_id", "")
            print(f"{name}: {record['message']} {f'(trace {trace})' if trace else ''}")
            assert not trace or bytes.fromhex(trace) in b"".join(traces.received)
            assert names <= alerts.keys(), names - alerts.keys()


if __name__ == "__main__":
    main()
