"""Many tasks on real brokers and servers, and the start of a worker."""

import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.clusters import Cluster
from tests.support.processes import children
from tests.support.rendering import Answers
from tests.support.servers import NETWORKED, PGBOUNCERS, PgBouncer, Redis
from tests.support.service import PROGRAMS, Service
from tests.support.task_shop import Shop, until

pytestmark = pytest.mark.boot

TASKS = 1000
OWN_TESTS = [f"test_{name}.py" for name in ("budget", "payments", "sweep", "worker")]


@pytest.mark.parametrize("driver", NETWORKED)
def test_many_tasks_on_few_connections(
    shop_of: Callable[..., Shop], driver: str
) -> None:
    """By 4 processes, each of which opens its one connection once, and closes it."""
    shop = shop_of(driver)
    most = shop.work_off(TASKS, "--concurrency=4")

    assert most <= 4
    used = "SELECT pid, count(DISTINCT session) AS n FROM done GROUP BY pid"
    assert [row["n"] for row in shop.rows(used)] == [1] * 4
    until(lambda: shop.sessions() == 0, "all are closed, and ours")


@pytest.mark.parametrize(
    ("driver", "engine"),
    [("asyncpg", "persistent"), ("psycopg", "per_task"), ("aiomysql", "persistent")],
)
def test_own_tests_pass(shop_of: Callable[..., Shop], driver: str, engine: str) -> None:
    done = shop_of(driver, engine).test(*OWN_TESTS)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("generation", "engine"),
    [*((generation, "persistent") for generation in PGBOUNCERS), ("1.24", "per_task")],
)
def test_worker_behind_a_pooler(
    shop_of: Callable[..., Shop],
    pooler_of: Callable[..., PgBouncer],
    generation: str,
    engine: str,
) -> None:
    """The pooler keeps its sessions; the worker keeps no connection to it."""
    pooler = pooler_of(generation)
    shop = shop_of("asyncpg", engine, pooler="transaction")
    direct = shop.variables["DATABASE_URL"]
    shop.variables["DATABASE_URL"] = pooler.through(direct)

    shop.work_off(200, "--concurrency=4")

    until(
        lambda: (
            shop.database
            not in {client["database"] for client in pooler.ask("SHOW CLIENTS")}
        ),
        "no client is left",
    )


def test_worker_without_children(shop_of: Callable[..., Shop]) -> None:
    shop = shop_of("asyncpg")

    assert shop.work_off(50, "--pool=solo") <= 1
    until(lambda: shop.sessions() == 0, "all are closed, and ours")


@pytest.mark.parametrize("carries_position", [True, False])
def test_task_finds_on_a_replica_what_was_written_before_it(
    shop_of: Callable[..., Shop],
    cluster_of: Callable[[str], Cluster],
    tmp_path: Path,
    carries_position: bool,  # noqa: FBT001
) -> None:
    """Because its message says what its reads must have seen."""
    shop, cluster = shop_of("asyncpg", with_replicas=True), cluster_of("postgresql")
    primary, replicas = cluster.database(f"db_{tmp_path.name.lower()}")
    shop = shop._replace(server=cluster.primary)
    shop.variables["DATABASE_URL"] = primary
    shop.variables["DATABASE_REPLICA_URLS"] = ",".join(replicas)
    if not carries_position:
        code = 'current_watermark.set(ReadWatermark(decode_token(token or "")))'
        file = "db/replicas/watermark.py"
        source = shop.service.changed(tmp_path / "src", file, code, "pass")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    for replica in cluster.replicas:
        replica.catch_up()
        replica.delay(2000)
    with shop.worker("--include=celery_tasks", "--concurrency=1") as worker:
        assert shop.ask_for(20, "find") == ""
        worker.wait_for_log("celery_tasks.find done", times=20)
        assert worker.stop() == 0

    missed = worker.log.read_text().count('"not found"')
    assert bool(missed) is not carries_position


URL = "CELERY_BROKER_URL"
NOWHERE = {"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/shop"}
WORK = ("python", "-m", "shop.worker")
WRONG = [
    (("gunicorn",), {URL: "amqp://u:secret@h"}, f"{URL}: write redis://:password@h"),
    (WORK, {URL: ""}, f"{URL}: Field required"),
    (WORK, {URL: "redis://:secret@h/0?a=b"}, f"{URL}: write redis://:password@host/0"),
    (WORK, {URL: "redis://:1234/secret@h/0"}, f"{URL}: write redis://:password@host/0"),
    (WORK, {URL: "redis://:secret@h:99999"}, f"{URL}: write redis://:password@host/0"),
    (
        WORK,
        {"CELERY_TASK_TIMEOUT_SECONDS": "140"},
        "CELERY_TASK_TIMEOUT_SECONDS + 10 s = 150 s does not fit in "
        "CELERY_VISIBILITY_TIMEOUT_SECONDS = 150 s",
    ),
    (
        WORK,
        {"CELERY_BROKER_SSLROOTCERT": __file__},
        "CELERY_BROKER_SSLROOTCERT is of no use without TLS: write rediss://",
    ),
    (WORK, {"CELERY_POOL_SIZE": "0"}, "CELERY_POOL_SIZE: Input should be greater"),
    (WORK, {"DATABASE_SSLMODE": "prefer"}, "DATABASE_SSLMODE: Input should be 'disab"),
]


@pytest.mark.parametrize(("program", "variables", "sentence"), WRONG)
def test_wrong_environment_stops_the_start_in_one_sentence(
    rendered: Callable[[Answers], Service],
    program: tuple[str, ...],
    variables: dict[str, str],
    sentence: str,
) -> None:
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    urls = {**NOWHERE, URL: "redis://:secret@127.0.0.1:1/0"}
    done = shop.command(*program, **urls | variables)

    assert done.returncode in (1, 3)
    (said,) = {line for line in done.stderr.splitlines() if not line.startswith("{")}
    assert said.startswith(sentence)
    assert "secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("is_first_alone", [True, False])
def test_workers_that_end_at_once_end_gunicorn_without_a_traceback(
    rendered: Callable[[Answers], Service],
    tmp_path: Path,
    is_first_alone: bool,  # noqa: FBT001
) -> None:
    """Two workers that end gunicorn: its halt for the first would meet the second."""
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    text = (shop.folder / "gunicorn.conf.py").read_text()
    code = 'sys.exit(3 if os.environ["WORKER"] == "1" else 0)'
    assert text.count(code) == 1
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(text if is_first_alone else text.replace(code, "sys.exit(3)"))
    code = "router = APIRouter()"
    instead = 'import time; time.sleep(5); raise SystemExit("It cannot start.")'
    source = shop.changed(tmp_path / "src", "api.py", code, instead)
    variables = {**NOWHERE, URL: "redis://127.0.0.1:1/0", "PYTHONPATH": source}
    with shop.running(f"--config={config}", ready="", **variables) as running:
        until(lambda: len(children(running.process.pid)) == 2, "both have begun")
        workers = children(running.process.pid)
        running.process.send_signal(signal.SIGSTOP)
        until(lambda: all(map(has_ended, workers)), "both have ended")
        running.process.send_signal(signal.SIGCONT)
        status = running.process.wait(timeout=30)

    log = running.log.read_text()
    assert (status == 3 and "Traceback" not in log) is is_first_alone


def has_ended(pid: int) -> bool:
    """Whether a process has ended whose status is not fetched yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def test_port_that_is_taken_stops_the_start_in_one_sentence(
    shop_of: Callable[..., Shop], redis: Redis
) -> None:
    shop = shop_of("asyncpg")
    port = {"CELERY_METRICS_PORT": str(redis.port)}
    done = shop.service.command(*WORK, **shop.variables | port)

    assert done.returncode == 1
    *_, last = done.stderr.splitlines()  # after the record of the budget
    assert (
        last == f"CELERY_METRICS_PORT={redis.port}: Address already in use; 0 is none."
    )


class Protection(NamedTuple):
    """A piece of code, and a test of the service's own that fails without it."""

    file: str
    code: str
    without: str
    test: str


PROTECTIONS = {
    "request id of a task": Protection(
        "worker/execution.py",
        "set_value(request.get(header))",
        "pass",
        "test_worker.py::test_task_runs_with_the_id_of_the_request",
    ),
    "request id of a message": Protection(
        "worker/app.py",
        "headers[header] = value",
        "pass",
        "test_worker.py::test_task_runs_with_the_id_of_the_request",
    ),
    "retry": Protection(
        "worker/execution.py",
        "if fault in TRANSIENT:",
        "if False:",
        "test_worker.py::test_task_is_repeated_after_a_fault_that_may_pass",
    ),
    "retry by Celery": Protection(
        "worker/app.py",
        '(TrackedTask, options.pop("base", CeleryTask))',
        '(options.pop("base", CeleryTask),)',
        "test_worker.py::test_task_that_celery_repeats_is_no_failed_one",
    ),
    "commit that is interrupted": Protection(
        "worker/execution.py",
        "            database.router.may_have_committed()\n",
        "",
        "test_worker.py"
        "::test_time_that_is_up_during_commit_is_looked_for_on_the_primary",
    ),
    "conditional payment": Protection(
        "payments.py",
        ".where(BY_ID, Order.status == old)",
        ".where(BY_ID)",
        "test_sweep.py::test_new_order_is_not_paid",
    ),
    "sweep of what is not done": Protection(
        "payments.py",
        ".where(Order.status == PAYING)",
        "",
        "test_sweep.py::test_task_that_the_queue_has_lost_is_published_again",
    ),
}


@pytest.mark.parametrize("protection", PROTECTIONS.values(), ids=PROTECTIONS.keys())
def test_protection_is_proved_by_a_test_that_can_fail(
    shop_of: Callable[..., Shop], tmp_path: Path, protection: Protection
) -> None:
    shop = shop_of("asyncpg")
    source = shop.service.changed(
        tmp_path / "src", protection.file, protection.code, protection.without
    )
    shop.variables["PYTHONPATH"] = source
    done = shop.test(protection.test)

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^1 failed", done.stdout, re.MULTILINE), done.stdout
