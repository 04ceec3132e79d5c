"""A trace leads from a request over its session to its task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.clusters import Cluster
from tests.support.collector import CALLER, SAMPLED, TRACE, collecting
from tests.support.service import NO_TLS, ORDER, Running, free_port
from tests.support.task_shop import Shop, lines

pytestmark = pytest.mark.boot

CANARY = "canary-5b8f"
POOL = "db.client.connection.pool.name"


class Spans(dict[str, Any]):
    """Those of the trace of the caller, by their ids."""

    def __init__(self, spans: list[Any]) -> None:
        super().__init__((each["id"], each) for each in spans)

    def first(self, name: str, request: str) -> Any:
        """Of that name in the part of the trace that a request has begun."""
        named = [each for each in self.values() if each["name"] == name]
        return next(each for each in named if self.path(each)[0] == request)

    def path(self, span: Any) -> list[str]:
        """Names from the request down to the span."""
        names = [span["name"]]
        while span["parent"] != CALLER:
            span = self[span["parent"]]
            names.insert(0, span["name"])
        return names

    def below(self, spans: set[str]) -> set[str]:
        return {each["id"] for each in self.values() if each["parent"] in spans}


def order_and_pay(client: Any, cluster: Cluster) -> str:
    """Read it as well, from a replica that has it; the path of the order."""
    order = ORDER | {"customer": CANARY}
    created = client.post("/orders", json=order, headers=SAMPLED)
    assert created.status_code == 201
    for replica in cluster.replicas:
        replica.catch_up()
    place = f"/orders/{created.json()['id']}"
    after = {"X-Read-After": created.headers["X-Read-After"]}
    assert client.get(place, headers=SAMPLED | after).status_code == 200
    assert client.post(f"{place}/pay", headers=SAMPLED).status_code == 202
    return place


def test_trace_leads_from_the_request_to_the_task(
    shop_of: Callable[..., Shop],
    cluster_of: Callable[[str], Cluster],
    tmp_path: Path,
) -> None:
    """With two workers of gunicorn, replicas and a worker of Celery."""
    shop = shop_of("asyncpg", with_replicas=True, with_tracing=True)
    cluster = cluster_of("postgresql")
    primary, replicas = cluster.database(f"db_{tmp_path.name.lower()}")
    variables = shop.variables | {"DATABASE_URL": primary}
    nowhere = make_url(primary).set(port=free_port())
    replicas = [*replicas, nowhere.render_as_string(hide_password=False)]
    variables["DATABASE_REPLICA_URLS"] = ",".join(replicas)
    shop.service.migrate(**variables)
    metrics = free_port()
    variables["CELERY_METRICS_PORT"] = str(metrics)
    with collecting(shop.service, tmp_path) as collector:
        # Only the end of a process exports: nothing else within ten minutes.
        variables |= collector.endpoint | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with (
            shop.service.running(**variables) as web,
            shop.service.working("--concurrency=1", **variables) as worker,
        ):
            web.wait_for_log("Application startup complete", times=2)
            place = order_and_pay(web.client, cluster)
            web.wait_for_log("banned for 10 s (unreachable)")
            assert web.client.get(place, headers=SAMPLED).status_code == 200
            worker.wait_for_log("payments.pay done")
            scraped = httpx.get(
                f"http://127.0.0.1:{metrics}/metrics", verify=NO_TLS
            ).text
            assert collector.spans() == []
            assert (worker.stop(), web.stop()) == (0, 0)
        everything, spans = collector.spans(), Spans(collector.spans(TRACE))

    # A gauge that tracing opens before its predecessor's is removed would be lost.
    assert "\ncelery_processes 1.0\n" in scraped
    post, get = "POST /orders", "GET /orders/{order_id}"
    pay, task = "POST /orders/{order_id}/pay", "run payments.pay"
    for name in "INSERT orders", "COMMIT":
        assert spans.path(spans.first(name, post)) == [post, "connection", name]
    attempt = spans.first(task, pay)
    assert spans.path(attempt) == [pay, task]
    of_task = spans.below(spans.below({attempt["id"]}))
    assert {"UPDATE orders", "COMMIT"} <= {spans[each]["name"] for each in of_task}
    chosen, read = spans.first("choose replica", get), spans.first("SELECT orders", get)
    assert spans.path(chosen) == [get, "choose replica"]
    assert chosen["attributes"][POOL] == read["attributes"][POOL] != "primary"
    # The caller sends its watermark.
    assert chosen["attributes"]["db.read_after_write"] is True
    assert read["attributes"]["db.query.text"].startswith("SELECT orders.id")
    passed_by = [each["attributes"].get("db.replicas.unhealthy") for each in everything]
    assert [f"{nowhere.host}:{nowhere.port}: unreachable"] in passed_by
    # Values of the data, and the password of the database.
    assert not [each for each in everything if CANARY in each["all"]]
    assert not [each for each in everything if ":secret" in each["all"]]
    # The worker of Celery, and a worker of gunicorn: each has its own provider.
    assert {each["resource"]["service.name"] for each in everything} == {"shop"}
    assert len({each["resource"]["process.pid"] for each in spans.values()}) > 1
    done = [each for each in lines(worker) if each["message"] == "payments.pay done"]
    assert [each["trace_id"] for each in done] == [TRACE]
    assert logged(web, "POST", "/orders") == [TRACE]


def logged(web: Running, method: str, route: str) -> list[str]:
    """The trace of each request of that route, as the log has it."""
    records = map(json.loads, web.log.read_text().splitlines())
    return [
        each["trace_id"]
        for each in records
        if (each.get("method"), each.get("route")) == (method, route)
    ]
