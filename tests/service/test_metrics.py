"""The metrics of a service with two workers, from either of them."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import gettempdir

import httpx
import pytest

from tests.support.service import (
    NO_TLS,
    PROGRAMS,
    Running,
    Service,
    free_port,
    wait_for,
    wait_until,
)

pytestmark = pytest.mark.boot

CREATED = "connections_created_total"
FOLDERS = {"/dev/shm", gettempdir()}


def scrape(running: Running) -> str:
    """Over a connection of its own, which any worker may accept; nothing where that
    worker was just killed.
    """
    with suppress(httpx.TransportError):
        return httpx.get(f"{running.client.base_url}/metrics", verify=NO_TLS).text
    return ""


def metric(running: Running, name: str) -> float:
    text = scrape(running)
    found = re.search(rf'database_pool_{name}{{pool="primary"}} (.+)\n', text)
    return float(found[1]) if found else 0


def requests(running: Running) -> float:
    """Those of the probe, which any worker may have answered."""
    text = scrape(running)
    labels = 'method="GET",route="/livez",status="2xx"'
    found = re.search(rf"http_request_duration_seconds_count{{{labels}}} (.+)\n", text)
    return float(found[1]) if found else 0


def folders(running: Running) -> list[Path]:
    name = f"metrics-{running.process.pid}-*"
    return [path for folder in FOLDERS for path in Path(folder).glob(name)]


def test_metrics_are_the_sum_of_the_workers_that_live(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("aiosqlite")
    arguments = (
        f"--pythonpath={PROGRAMS}",
        "--workers=2",
        "service_with_held_connection:create_app()",
    )
    with (
        shop.running(*arguments, **database("aiosqlite")) as running,
        ExitStack() as streams,
    ):
        open_answers: list[object] = []  # else the client would hang up

        def hold() -> int:
            address = f"{running.client.base_url}/held"
            answer = streams.enter_context(
                httpx.stream("GET", address, timeout=10, verify=NO_TLS)
            )
            chunks = answer.iter_text()
            open_answers.append(chunks)
            return int(next(chunks))

        first = hold()
        os.kill(first, signal.SIGSTOP)
        second = hold()
        os.kill(first, signal.SIGCONT)
        wait_until(lambda: metric(running, "in_use") == 2)
        created = metric(running, CREATED)
        asked = requests(running)
        for _ in range(20):
            assert httpx.get(
                f"{running.client.base_url}/livez", verify=NO_TLS
            ).is_success
        wait_until(lambda: requests(running) == asked + 20)
        wait_until(lambda: metric(running, "size") == 2 * 5)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: metric(running, "in_use") == 1)

        assert second != first
        assert created >= 2
        assert metric(running, CREATED) >= created
        assert requests(running) == asked + 20
        # The successor has a pool of the same size.
        wait_until(lambda: metric(running, "size") == 2 * 5)
        (folder,) = folders(running)
        streams.close()
        assert running.stop() == 0
        assert not folder.exists()


def test_scrape_of_four_workers_is_right_after_one_was_killed(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    """What it has counted stays, what it held is gone, and its end is counted; the end
    of those that a reload replaces is not.
    """
    shop = service("aiosqlite")
    arguments = (
        f"--pythonpath={PROGRAMS}",
        "--workers=4",
        "service_with_held_connection:create_app()",
    )

    def workers(running: Running) -> set[int]:
        pid = running.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return {*map(int, children.read_text().split())}

    def state(running: Running) -> dict[str, float]:
        text = scrape(running)
        pool = r'database_pool_(size|in_use|waiting){pool="primary"}'
        names = rf"^({pool}|http_requests_in_progress|gunicorn_workers_ended_total) "
        return {
            found[1]: float(found[3])
            for found in re.finditer(rf"{names}(.+)$", text, re.MULTILINE)
        }

    def expected(held: int, ended: int) -> dict[str, float]:
        # The scrape itself is no request in progress before it is exported.
        return {
            'database_pool_size{pool="primary"}': 4 * 5,
            'database_pool_in_use{pool="primary"}': held,
            'database_pool_waiting{pool="primary"}': 0,
            "http_requests_in_progress": held,
            "gunicorn_workers_ended_total": ended,
        }

    with (
        shop.running(*arguments, **database("aiosqlite")) as running,
        ExitStack() as streams,
    ):
        wait_until(lambda: state(running) == expected(0, 0))
        before, holders, open_answers = workers(running), [], []
        for _ in range(6):
            address = f"{running.client.base_url}/held"
            answer = streams.enter_context(
                httpx.stream("GET", address, timeout=30, verify=NO_TLS)
            )
            open_answers.append(answer.iter_text())  # else the client would hang up
            holders.append(int(next(open_answers[-1])))
        asked = requests(running)
        for _ in range(50):
            assert httpx.get(
                f"{running.client.base_url}/livez", verify=NO_TLS
            ).is_success
        wait_until(lambda: requests(running) == asked + 50)
        wait_until(lambda: state(running) == expected(6, 0))
        killed = holders[0]
        os.kill(killed, signal.SIGKILL)
        kept = 6 - holders.count(killed)
        wait_until(lambda: state(running) == expected(kept, 1))

        assert requests(running) == asked + 50
        after = workers(running)
        assert len(after) == 4
        assert before - after == {killed}
        # The successor goes on with the counters of that worker.
        for _ in range(50):
            assert httpx.get(
                f"{running.client.base_url}/livez", verify=NO_TLS
            ).is_success
        wait_until(lambda: requests(running) == asked + 100)
        wait_until(lambda: state(running) == expected(kept, 1))
        streams.close()
        # A reload ends all of them, and is no fault.
        old = workers(running)
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(workers(running)) == 4 and not workers(running) & old)
        wait_until(lambda: state(running) == expected(0, 1))
        assert running.stop() == 0


def test_files_of_metrics_do_not_grow_with_the_workers_that_end(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    shop = service("aiosqlite")
    arguments = (
        f"--pythonpath={PROGRAMS}",
        "--workers=1",
        "service_with_held_connection:create_app()",
    )
    with shop.running(*arguments, **database("aiosqlite")) as running:

        def worker() -> int:
            """The process that answers, by its use of the database."""
            with running.client.stream("GET", "/held", timeout=10) as answer:
                return int(next(answer.iter_text()))

        first = worker()
        wait_until(lambda: metric(running, CREATED) == 1)
        # The file of the histogram begins with the first export of a request.
        assert running.client.get("/livez").is_success
        wait_until(lambda: requests(running) == 1)
        (folder,) = folders(running)
        files = {path.name for path in folder.iterdir()}
        for killed in range(1, 4):
            os.kill(worker(), signal.SIGKILL)
            wait_for(running, "/livez")
            assert worker() != first
            # A pool of each worker has opened a connection: the counter goes on.
            wait_until(lambda: metric(running, CREATED) == killed + 1)  # noqa: B023

        # Those of the gauges end with a worker, and come back with its successor.
        wait_until(lambda: {path.name for path in folder.iterdir()} == files)
        assert running.stop() == 0


def test_folder_of_the_environment_is_used_and_stays(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    variables = database("aiosqlite") | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with service("aiosqlite").running(**variables) as running:
        assert metric(running, "size") > 0
        assert folders(running) == []
        assert running.stop() == 0
    assert list(folder.glob("counter_*.db"))


def test_port_of_the_metrics_has_nothing_else_and_outlives_a_worker(
    service: Callable[[str], Service], database: Callable[[str], dict[str, str]]
) -> None:
    port = free_port()
    variables = database("aiosqlite") | {"METRICS_PORT": str(port)}
    with (
        service("aiosqlite").running("--workers=1", **variables) as running,
        httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, verify=NO_TLS
        ) as scraper,
    ):
        paths = ("/metrics", "/livez", "/readyz", "/metrics/", "/metrics%0A")
        scraped = [scraper.get(path).status_code for path in paths]
        served = [running.client.get(path).status_code for path in paths]
        host = {"Host": f"127.0.0.1:{port}", "X-Forwarded-Host": f"localhost:{port}"}
        disguised = running.client.get("/metrics", headers=host)

        pid = running.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        worker = children.read_text().strip()
        os.kill(int(worker), signal.SIGKILL)
        wait_until(lambda: children.read_text().strip() not in ("", worker))
        again = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30, verify=NO_TLS)
        assert running.stop() == 0

    assert scraped == [200, 404, 404, 404, 404]
    assert served == [404, 200, 200, 404, 404]
    assert disguised.status_code == 404
    assert "database_pool_size" in again.text
