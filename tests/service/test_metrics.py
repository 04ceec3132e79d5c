"""The figures of a service with two workers, from either of them."""

import os
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import gettempdir

import httpx
import pytest

from tests.support.service import PROGRAMS, Running, Service, wait_until

pytestmark = pytest.mark.boot

CREATED = "connections_created_total"
FOLDERS = ("/dev/shm", gettempdir())


def figure(running: Running, name: str) -> float:
    # Over a connection of its own, which any worker may accept.
    text = httpx.get(f"{running.client.base_url}/metrics").text
    found = re.search(rf'database_pool_{name}{{pool="primary"}} (.+)\n', text)
    return float(found[1]) if found else 0


def folders(running: Running) -> list[Path]:
    name = f"metrics-{running.process.pid}-*"
    return [path for folder in FOLDERS for path in Path(folder).glob(name)]


def test_figures_are_the_sum_of_the_workers_that_live(
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
            answer = streams.enter_context(httpx.stream("GET", address, timeout=10))
            chunks = answer.iter_text()
            open_answers.append(chunks)
            return int(next(chunks))

        first = hold()
        os.kill(first, signal.SIGSTOP)
        second = hold()
        os.kill(first, signal.SIGCONT)
        wait_until(lambda: figure(running, "in_use") == 2)
        created = figure(running, CREATED)
        wait_until(lambda: figure(running, "size") == 2 * 5)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: figure(running, "in_use") == 1)

        assert second != first
        assert created >= 2
        assert figure(running, CREATED) >= created
        # The successor has a pool of the same size.
        wait_until(lambda: figure(running, "size") == 2 * 5)
        (folder,) = folders(running)
        streams.close()
        assert running.stop() == 0
        assert not folder.exists()


def test_folder_that_somebody_else_made_is_used_and_stays(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    variables = database("aiosqlite") | {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with service("aiosqlite").running(**variables) as running:
        assert figure(running, "size") > 0
        assert folders(running) == []
        assert running.stop() == 0
    assert list(folder.glob("counter_*.db"))
