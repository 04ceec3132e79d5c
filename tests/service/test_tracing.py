"""Tracing on each driver; an exporter that fails costs no request anything."""

import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.collector import QUICK, SAMPLED, TRACE, Collector, collecting
from tests.support.processes import children
from tests.support.rendered_tests import run_tests
from tests.support.rendering import Answers
from tests.support.servers import DRIVERS, NETWORKED, Server
from tests.support.service import ORDER, Service, free_port, wait_until

pytestmark = pytest.mark.boot

DROPPED = 'tracing_spans_dropped_total{reason="export failed"}'


@pytest.mark.parametrize("driver", DRIVERS)
def test_traced_service_passes_its_tests(
    rendered: Callable[[Answers], Service],
    server_of: Callable[[str], Server],
    driver: str,
) -> None:
    variables = {"DATABASE_URL": server_of(driver).url} if driver in NETWORKED else {}
    shop = rendered({"driver": driver, "with_tracing": True})
    # Those after `tracing` are traced; a line of the log then has a field more.
    names = ("logs", "tracing", "imports", "sessions", "orders", "pool")
    done = run_tests(shop, *(f"test_{name}.py" for name in names), **variables)

    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("endpoint", "changes", "warning"),
    [
        ("silent", {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}, "spans cannot be exported"),
        ("refusing", {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}, "spans cannot be exported"),
        ("no URL", {}, "spans cannot be exported"),
        ("refusing", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "write http/protobuf"),
        ("refusing", {"OTEL_TRACES_EXPORTER": "jaeger"}, "write otlp"),
        ("refusing", {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4096"}, "no traces: OTEL_BSP"),
        ("refusing", {"OTEL_SPAN_EVENT_COUNT_LIMIT": "abc"}, "no traces: OTEL_BSP"),
    ],
)
def test_wrong_endpoint_costs_no_request_and_one_warning(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
    endpoint: str,
    changes: dict[str, str],
    warning: str,
) -> None:
    shop = rendered({"driver": "aiosqlite", "with_tracing": True})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if endpoint == "silent" else free_port()
        url = (
            "nowhere?key=s3t"
            if endpoint == "no URL"
            else f"http://127.0.0.1:{port}?key=s3t"
        )
        variables = database("aiosqlite") | QUICK | changes
        variables |= {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "WEB_CONCURRENCY": "1"}
        shop.migrate(**variables)
        with shop.running(**variables) as running:
            exports = "cannot be exported" in warning

            def is_dropping() -> bool:
                answer = running.client.post("/orders", json=ORDER, headers=SAMPLED)
                assert answer.status_code == 201
                found = dropped(running.client.get("/metrics").text)
                return found > 2 if exports else found == 0

            wait_until(is_dropping, seconds=30)
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(timeout=20) == 0

    log = running.log.read_text()
    assert log.count(warning) == 1
    assert log.count('"WARNING"') == 1
    assert "Traceback" not in log
    assert "s3t" not in log


@pytest.mark.parametrize(
    "sentence",
    [
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT=abc: write a whole number from 1 on.",
        "OTEL_TRACES_SAMPLER=ratio: write one of always_on, always_off, traceidratio,",
        "OTEL_TRACES_SAMPLER_ARG=10%: write a number from 0 to 1, as in 0.1.",
        "OTEL_TRACES_SAMPLER_ARG=nan: write a number from 0 to 1, as in 0.1.",
    ],
)
def test_wrong_variable_of_the_sdk_ends_the_start_in_a_sentence(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
    sentence: str,
) -> None:
    """The SDK reads the first at its import, where no warning could be logged; for the
    others it would record every trace.
    """
    shop = rendered({"driver": "aiosqlite", "with_tracing": True})
    variable, _, rest = sentence.partition("=")
    variables = database("aiosqlite") | {variable: rest.partition(":")[0]}
    done = shop.command("python", "-c", "import shop.main", **variables)

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(sentence)


def dropped(metrics: str) -> float:
    found = re.search(rf"^{re.escape(DROPPED)} ([\d.]+)$", metrics, re.MULTILINE)
    return float(found[1]) if found else 0


def test_without_an_endpoint_nothing_is_recorded(
    rendered: Callable[[Answers], Service], database: Callable[[str], dict[str, str]]
) -> None:
    """The trace of the caller is in the log all the same."""
    shop = rendered({"driver": "aiosqlite", "with_tracing": True})
    variables = database("aiosqlite") | {"WEB_CONCURRENCY": "1"}
    shop.migrate(**variables)
    with shop.running(command=shop.start_command, **variables) as running:
        running.client.post("/orders", json=ORDER, headers=SAMPLED)
        running.wait_for_log(f'"trace_id": "{TRACE}"')
        running.stop()

    assert '"WARNING"' not in running.log.read_text()


def test_start_of_a_worker_names_the_one_that_was_killed(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    shop = rendered({"driver": "asyncpg", "with_tracing": True})
    with collecting(shop, tmp_path) as collector:
        variables = database("asyncpg") | collector.endpoint | QUICK
        variables |= {"WEB_CONCURRENCY": "2", "OTEL_TRACES_SAMPLER": "always_on"}
        shop.migrate(**variables)
        with shop.running(**variables) as running:
            running.wait_for_log("Application startup complete", times=2)
            wait_until(lambda: len(starts(collector)) == 2)
            killed = min(children(running.process.pid))
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda: len(starts(collector)) == 3, seconds=30)

    assert starts(collector) == [None, None, killed]
    assert f"(pid:{killed}) was sent SIGKILL" in running.log.read_text()


def starts(collector: Collector) -> list[int | None]:
    """The predecessor that each start of a process names."""
    named = [each for each in collector.spans() if each["name"] == "start"]
    return [each["attributes"].get("process.predecessor.pid") for each in named]
