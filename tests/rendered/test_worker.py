"""A real worker runs tasks, and runs a task again after a fault that may pass."""

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from kombu.exceptions import OperationalError
from prometheus_client import REGISTRY
from shop.db import Database
from shop.db.errors import CommitOutcomeUnknown
from shop.features import CONFIGURE
from shop.settings import Settings
from shop.tasks import greet
from shop.worker.app import task
from shop.worker.execution import _run_bounded

logger = logging.getLogger(__name__)


@task()
async def succeed_the_second_time(_: Database, marker: str) -> None:
    if not Path(marker).exists():  # noqa: ASYNC240
        Path(marker).mkdir()  # noqa: ASYNC240
        raise CommitOutcomeUnknown("lost")
    logger.info("done, the second time")


@task(autoretry_for=(OSError,))
async def succeed_after_an_error_of_its_own(_: Database, marker: str) -> None:
    if not Path(marker).exists():  # noqa: ASYNC240
        Path(marker).mkdir()  # noqa: ASYNC240
        raise OSError("the bank is away")
    logger.info("done, after an error of its own")


@task(every=3600)
async def repeat(_: Database) -> None:
    """A periodic task."""


class Worker:
    def __init__(self, log: Path, port: int) -> None:
        self.log, self.port = log, port

    def wait_for(self, text: str, seconds: float = 15) -> dict[str, Any]:
        """The line of the log with this text."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for line in self.log.read_text().splitlines():
                if text in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            time.sleep(0.02)
        raise AssertionError(f"not in the log: {text}\n{self.log.read_text()}")


# The check has as much time as it needs; else the worker would start without an answer.
PATIENT_WORKER = """
import runpy, sys
from shop.db.doctor import startup_check
startup_check.START_SECONDS = 30
sys.argv = ["worker", "worker"]
runpy.run_module("shop.worker", run_name="__main__")
"""


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: Any) -> Iterator[Worker]:
    """Ends cleanly, whatever it has run; knows the tasks of this module."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))  # and never listens: the port is kept
    port = place.getsockname()[1]
    log = tmp_path_factory.mktemp("worker") / "log"
    options = ("--concurrency=1", f"--include={__name__}")
    path = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    changes = {"CELERY_METRICS_PORT": str(port), "LOG_LEVEL": "INFO"}
    changes |= {"PYTHONPATH": path}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "shop.worker", "worker", *options],
            env={**os.environ, **changes},
            stdout=output,
            stderr=output,
        )
    try:
        worker = Worker(log, port)
        worker.wait_for("ready.", seconds=60)
        yield worker
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        place.close()


@pytest.fixture
def configured(settings: Settings) -> None:
    """As main.py does, for a test without an app."""
    for configure in CONFIGURE:
        configure(settings)


def test_worker_whose_budget_does_not_fit_is_not_started(settings: Settings) -> None:
    """With DATABASE_BUDGET_CHECK=refuse, as the service."""
    changes = {
        "CELERY_METRICS_PORT": "0",
        "DATABASE_BUDGET_CHECK": "refuse",
        "DATABASE_POOL_SIZE": "1000000",
    }
    assert settings.database_pool_size < 1000
    done = subprocess.run(
        [sys.executable, "-c", PATIENT_WORKER],
        env={**os.environ, **changes},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 3
    assert "connection budget: " in done.stdout + done.stderr


async def test_task_runs_with_the_id_of_the_request(
    app: FastAPI, serve: Any, worker: Worker
) -> None:
    @app.post("/probe")
    async def probe() -> bool:
        return await greet.enqueue("ada")

    async with serve(app) as client:
        answer = await client.post("/probe", headers={"X-Request-ID": "abc"})

    assert answer.json() is True
    assert worker.wait_for("Hello ada")["request_id"] == "abc"


@pytest.mark.usefixtures("configured")
async def test_task_is_repeated_after_a_fault_that_may_pass(
    worker: Worker, tmp_path: Path
) -> None:
    began = time.time()
    await succeed_the_second_time.enqueue(str(tmp_path / "marker"))

    assert worker.wait_for("done, the second time")
    seconds = time.time() - began
    told = re.search(r"retried in (\S+) s", worker.wait_for("is retried in")["message"])
    assert told
    pause = float(told[1]) - 0.05  # it is rounded
    label = f'task="{__name__}.succeed_the_second_time"'
    metrics = ""
    async with AsyncClient() as client, asyncio.timeout(15):
        while "celery_tasks_in_progress{" + label + "} 0.0" not in metrics:
            metrics = (await client.get(f"http://127.0.0.1:{worker.port}/metrics")).text
    assert 'celery_tasks_total{outcome="retried",' + label + "} 1.0" in metrics
    # A first one is seen: before it the counter has been 0.
    assert 'celery_tasks_total{outcome="killed",' + label + "} 0.0" in metrics
    assert "\ncelery_processes 1.0\n" in metrics
    every = f'celery_task_every_seconds{{task="{__name__}.repeat"}} 3600.0'
    assert every in metrics
    # From when it was due: the pause before the second attempt is no wait.
    assert "celery_task_wait_seconds_count{" + label + "} 2.0" in metrics
    late = re.search(rf"celery_task_wait_seconds_sum{{{label}}} (.+)\n", metrics)
    assert late
    assert 0 < float(late[1]) < seconds - pause


@pytest.mark.usefixtures("configured")
async def test_task_that_celery_repeats_is_no_failed_one(
    worker: Worker, tmp_path: Path
) -> None:
    await succeed_after_an_error_of_its_own.enqueue(str(tmp_path / "marker"))

    assert worker.wait_for("done, after an error of its own")
    assert "is retried in 1.0 s" in worker.wait_for("the bank is away")["message"]
    label = f'task="{__name__}.succeed_after_an_error_of_its_own"'
    metrics = ""
    async with AsyncClient() as client, asyncio.timeout(15):
        while 'celery_tasks_total{outcome="done",' + label + "} 1.0" not in metrics:
            metrics = (await client.get(f"http://127.0.0.1:{worker.port}/metrics")).text
    assert 'celery_tasks_total{outcome="retried",' + label + "} 1.0" in metrics
    assert 'celery_tasks_total{outcome="failed",' + label + "} 0.0" in metrics


async def test_time_that_is_up_during_commit_is_looked_for_on_the_primary(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that lags would say to the next attempt that nothing was written."""
    told: list[bool] = []

    async def commit(database: Database) -> None:
        database.commits.interrupted += 1
        await asyncio.Event().wait()

    monkeypatch.setattr(
        database.router, "may_have_committed", lambda: told.append(True)
    )
    with pytest.raises(CommitOutcomeUnknown):
        await _run_bounded(commit, 0.01, database)

    assert told


@pytest.mark.usefixtures("configured")
async def test_task_that_no_broker_takes_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OperationalError("refused")

    def unpublished() -> float | None:
        labels = {"task": "tasks.greet"}
        return REGISTRY.get_sample_value("celery_tasks_unpublished_total", labels)

    monkeypatch.setattr(greet._registered, "apply_async", refuse)
    before = unpublished()

    assert before is not None  # from 0 on
    assert await greet.enqueue("ada") is False
    assert unpublished() == before + 1


async def test_task_can_be_called_without_a_worker(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await greet.function(database, "eve")

    assert "Hello eve" in caplog.text
