"""Tasks whose worker, process or time ends, and the errors of the runbook."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.processes import children
from tests.support.proxy import Proxy
from tests.support.rendering import ROOT, Answers
from tests.support.servers import NETWORKED, Redis, Server
from tests.support.service import NO_TLS, PROGRAMS, Program, Service, free_port
from tests.support.task_shop import WAITING, Shop, lines, promised, until

pytestmark = pytest.mark.boot

# A task may be interrupted, and is given to another worker, while a test waits.
HASTE = {
    "CELERY_TASK_TIMEOUT_SECONDS": "5",
    "CELERY_VISIBILITY_TIMEOUT_SECONDS": "16",
    "CELERY_SHUTDOWN_SECONDS": "1",
    # It waits for a row until it is interrupted.
    "DATABASE_LOCK_TIMEOUT_SECONDS": "4.5",
}


@pytest.mark.parametrize("driver", NETWORKED)
def test_time_that_is_up_during_commit_leaves_the_outcome_unknown(
    rendered: Callable[[Answers], Service],
    server_of: Callable[[str], Server],
    driver: str,
) -> None:
    """Before COMMIT, all is known to be rolled back."""
    shop = rendered({"driver": driver, "with_celery": True})
    changes = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": str(ROOT)}
    url = server_of(driver).url
    done = shop.program("task_timeouts", DATABASE_URL=url, **changes)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["timeout", "outcome-unknown"]


# Pauses of 0.2 s at most: what the visibility timeout leaves.
QUICK = {
    "CELERY_TASK_TIMEOUT_SECONDS": "2",
    "CELERY_VISIBILITY_TIMEOUT_SECONDS": "12.2",
}
UNCOUNTED = "if fault is FaultKind.UNAVAILABLE and task.max_retries != 0:"


@pytest.mark.parametrize(
    ("driver", "how"),
    [
        ("asyncpg", "is waited for"),
        ("aiomysql", "is waited for"),
        ("asyncpg", "is over time"),
        ("asyncpg", "is counted"),
    ],
)
def test_outage_of_the_database_is_bounded_by_time(
    shop_of: Callable[..., Shop], tmp_path: Path, driver: str, how: str
) -> None:
    """However many retries fit in it: ten of them would be the end of a task."""
    shop = shop_of(driver)
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    if how == "is counted":
        file = "worker/execution.py"
        source = shop.service.changed(tmp_path / "src", file, UNCOUNTED, "if False:")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    plain = make_url(shop.server.url).set(database=shop.database)
    with Proxy("127.0.0.1", int(plain.port or 0)) as proxy:
        through = plain.set(port=proxy.port).render_as_string(hide_password=False)
        changes = {**QUICK, "DATABASE_URL": through}
        if how == "is over time":
            changes["CELERY_OUTAGE_SECONDS"] = "1"
        with shop.worker("--include=celery_tasks", "--concurrency=1", **changes) as w:
            proxy.refuse()
            assert shop.ask_for(1, "count", **changes) == "1\n"
            if how != "is waited for":
                w.wait_for_log("celery_tasks.count failed")
                w.wait_for_log("TaskFailed: unavailable")
                retries = w.log.read_text().count("failed and is retried")
                assert (retries == 10) is (how == "is counted")
                return
            w.wait_for_log("celery_tasks.count failed and is retried", times=15)
            proxy.heal()
            until(lambda: shop.number("SELECT count(*) FROM done"), "it is done")
            assert w.stop() == 0

    retried = [line for line in lines(w) if "is retried" in line["message"]]
    assert len({line["task_id"] for line in retried}) == 1


def end(worker: Program, how: str) -> None:
    """End it, or what runs its task, in the midst of a task."""
    if how == "its process is killed":
        (child,) = children(worker.process.pid)
        os.kill(child, signal.SIGKILL)
        until(lambda: child not in children(worker.process.pid), "it has gone")
    elif how == "it is killed":  # with its processes, which would end their tasks
        processes = children(worker.process.pid)
        worker.process.kill()
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        worker.process.wait()
    else:
        worker.stop()


def is_empty(redis: Redis, command: str) -> bool:
    return redis.ask(command) == ":0"


@contextmanager
def interrupted(shop: Shop, how: str) -> Iterator[tuple[str, Program]]:
    """A worker that is interrupted in the midst of a payment, and the order."""
    with shop.service.running(**shop.variables) as running:
        order = promised(running)
    with ExitStack() as row:
        row.enter_context(shop.held(order))  # before a worker is there to pay it
        with shop.worker("--concurrency=1", **HASTE) as worker:
            until(lambda: shop.number(WAITING), "the task is at work")
            end(worker, how)
            row.close()
            yield order, worker


@pytest.mark.parametrize(
    ("engine", "how"),
    [
        ("persistent", "its process is killed"),
        ("persistent", "it is killed"),
        ("persistent", "it has to stop"),
        ("per_task", "its process is killed"),
        ("per_task", "it has to stop"),
    ],
)
def test_task_that_was_interrupted_is_done_nevertheless(
    audited: Callable[..., Shop], engine: str, how: str
) -> None:
    """Without the sweep: its message is there, and knows its request."""
    shop = audited(engine=engine)
    with interrupted(shop, how) as (order, worker), ExitStack() as more:
        if worker.process.poll() is None:
            last = worker
        else:
            last = more.enter_context(shop.worker("--concurrency=1", **HASTE))
        seconds = until(shop.payments, "it is paid")
        assert last.stop() == 0

    print(f"{engine}, {how}: paid {seconds:.1f} s later")
    (done,) = [line for line in lines(last) if line["message"] == "payments.pay done"]
    assert done["request_id"] == f"pay-{order}"
    assert shop.payments() == {order: 1}
    words = "was killed with its process" if "process" in how else "is delivered again"
    (told,) = [line for line in lines(last) if words in line["message"]]
    for fact in ("task", "task_id", "request_id"):
        assert told[fact] == done[fact]
    assert "process" not in how or "and comes again in 1 s" in told["message"]


@pytest.mark.parametrize(
    ("setting", "how"),
    [
        ("task_acks_late", "it is killed"),
        ("task_re(ject|try)_on_worker_lost", "its process is killed"),
    ],
)
def test_without_a_setting_the_task_is_lost(
    audited: Callable[..., Shop],
    redis: Redis,
    tmp_path: Path,
    setting: str,
    how: str,
) -> None:
    shop = audited()
    package = shop.service.folder / "src" / "shop"
    source = Path(shutil.copytree(package, tmp_path / "src" / "shop"))
    file = source / "worker" / "settings.py"
    text, changes = re.subn(rf'("{setting}": )True', r"\1False", file.read_text())
    assert changes
    file.write_text(text)
    shop.variables["PYTHONPATH"] = f"{source.parent}:{PROGRAMS}"

    with interrupted(shop, how):
        # Neither in the queue nor on record with the broker.
        for command in ("LLEN shop:celery", "HLEN shop:unacked"):
            until(partial(is_empty, redis, command), command)
    assert shop.payments() == {}


KILLED = 'celery_tasks_total{outcome="killed",task="celery_tasks.crash"}'


def metrics(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics", verify=NO_TLS).text


def test_task_that_ends_its_process_is_given_up(shop_of: Callable[..., Shop]) -> None:
    """And does not come again and again; the worker goes on with the others."""
    shop, port = shop_of("asyncpg"), free_port()
    changes = {"CELERY_METRICS_PORT": str(port)}
    with shop.worker("--include=celery_tasks", "--concurrency=1", **changes) as worker:
        assert shop.ask_for(1, "crash") == "1\n"
        worker.wait_for_log("crash 0", times=2)
        assert shop.ask_for(2, "crash") == "2\n"
        for number, times in ((0, 4), (1, 2)):
            worker.wait_for_log(f"crash {number}", times)
        worker.wait_for_log("and is given up: Worker exited prematurely", times=3)
        assert f"{KILLED} 6.0" in metrics(port)
        # Those of processes that have gone are forgotten.
        until(lambda: "in_progress{" not in metrics(port), "none is at work")
        assert worker.stop() == 0

    assert worker.log.read_text().count('"message": "crash ') == 6


# Above, and in test_broker.py.
PROVOKED_ELSEWHERE = {
    "broker keeps no record of task",
    "failed and is retried",
    "is delivered again",
    "Unrecoverable error",
}


def test_each_entry_of_the_runbook_is_provoked(
    shop_of: Callable[..., Shop], redis: Redis
) -> None:
    """And the worker goes on."""
    shop = shop_of("asyncpg")
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    # Of the program that publishes a task: it goes along.
    shop.variables["CELERY_TASK_TIMEOUT_SECONDS"] = "3"
    with shop.worker("--include=celery_tasks", "--concurrency=1") as worker:
        for kind, words in (
            ("fail", "TaskFailed"),
            ("unknown", "Received unregistered task"),
            ("exit_process", "A task must not exit"),
            ("block", "Hard time limit"),
            ("crash", "WorkerLostError"),
        ):
            shop.ask_for(1, kind)
            worker.wait_for_log(words)
        redis.kill()
        said = shop.ask_for(1, "count")
        for words in ("Connection to broker lost", "Cannot connect to redis"):
            worker.wait_for_log(words)
        redis.start()
        assert shop.ask_for(1, "count") == "1\n"
        until(lambda: shop.number("SELECT count(*) FROM done"), "it goes on")
        assert worker.stop() == 0
        said += worker.log.read_text()

    runbook = (ROOT / "variants" / "runbook_tasks" / "celery.md").read_text()
    titles = re.findall(r"^### (.*)", runbook, re.MULTILINE)
    entries = re.findall(r"`(.+?)`", " ".join(titles))
    assert len(entries) == 13
    assert {words for words in entries if words not in said} == PROVOKED_ELSEWHERE


@pytest.mark.parametrize("kind", ["persistent", "per_task", "solo", "without a bound"])
def test_stop_waits_for_a_task_no_longer_than_its_bound(
    shop_of: Callable[..., Shop], redis: Redis, tmp_path: Path, kind: str
) -> None:
    """And the task has rolled back before its connection is closed."""
    shop = shop_of("asyncpg", "per_task" if kind == "per_task" else "persistent")
    pool = "solo" if kind == "solo" else "prefork"
    if kind == "without a bound":
        line = "    signals.worker_shutting_down.connect(end_in_time, weak=False)\n"
        file = "worker/__main__.py"
        source = shop.service.changed(tmp_path / "unbounded", file, line, "")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    options = ("--include=celery_tasks", "--concurrency=1", f"--pool={pool}")
    with shop.worker(*options, CELERY_SHUTDOWN_SECONDS="1") as worker:
        assert shop.ask_for(1, "stay") == "1\n"
        until(shop.sessions, "the task is at work")
        worker.process.send_signal(signal.SIGTERM)
        if kind == "without a bound":
            with pytest.raises(subprocess.TimeoutExpired):
                worker.process.wait(timeout=5)
            return
        worker.process.wait(timeout=20)

    until(lambda: shop.sessions() == 0, "all are closed")
    assert redis.ask("LLEN shop:celery") == ":1"
