"""Workers on real brokers and servers: many tasks, and every way to lose one."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
import trustme
from sqlalchemy import make_url

from tests.support.clusters import Cluster
from tests.support.processes import children
from tests.support.rendering import ROOT, Answers
from tests.support.servers import (
    DRIVERS,
    PGBOUNCERS,
    EncryptedRedis,
    MariaDB,
    PgBouncer,
    PostgreSQL,
    Redis,
    Server,
)
from tests.support.service import ORDER, PROGRAMS, Program, Running, Service, free_port

pytestmark = pytest.mark.boot

NETWORKED = [driver for driver in DRIVERS if driver != "aiosqlite"]
TASKS = 1000
OWN_TESTS = [f"test_{name}.py" for name in ("budget", "payments", "sweep", "worker")]

# Each payment is written down, also one that changes nothing.
AUDIT = (
    "CREATE TABLE paid (order_id uuid)",
    "CREATE FUNCTION pay() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN INSERT INTO paid VALUES (NEW.id); RETURN NEW; END'",
    "CREATE TRIGGER pay AFTER UPDATE ON orders FOR EACH ROW"
    " WHEN (NEW.status = 'paid') EXECUTE FUNCTION pay()",
)
PAYMENTS = "SELECT order_id, count(*) AS n FROM paid GROUP BY order_id"
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database()"
)
QUEUED = "LRANGE shop:celery 0 -1"
# A task may be interrupted, and is given to another worker, while a test waits.
HASTE = {
    "CELERY_TASK_TIMEOUT_SECONDS": "5",
    "CELERY_VISIBILITY_TIMEOUT_SECONDS": "16",
    "CELERY_SHUTDOWN_SECONDS": "1",
}


@pytest.mark.parametrize("driver", NETWORKED)
def test_time_that_is_up_during_commit_leaves_the_outcome_unknown(
    rendered: Callable[[Answers], Service],
    server_of: Callable[[str], Server],
    driver: str,
) -> None:
    """Before it, all is known to be rolled back."""
    shop = rendered({"driver": driver, "with_celery": True})
    changes = {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0", "PYTHONPATH": str(ROOT)}
    url = server_of(driver).url
    done = shop.program("interrupted", DATABASE_URL=url, **changes)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["timeout", "outcome-unknown"]


def test_broker_that_is_silent_is_named_as_the_reason(
    rendered: Callable[[Answers], Service],
) -> None:
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    program = (
        "import asyncio, logging; from shop import worker; from shop.jobs import greet;"
        "worker.PUBLISH_SECONDS = 0.2; logging.basicConfig();"
        "print(asyncio.run(greet.enqueue('ada')))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        done = shop.command(
            *("python", "-c", program), CELERY_BROKER_URL=f"redis://127.0.0.1:{port}/0"
        )

    assert done.stdout == "False\n", done.stderr
    assert "jobs.greet not enqueued: TimeoutError" in done.stderr


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> float:
    """Wait for it, and tell how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, what
        time.sleep(0.05)
    return time.monotonic() - began


class Shop(NamedTuple):
    """A service with Celery, and its empty database."""

    service: Service
    server: Server
    variables: dict[str, str]

    @property
    def database(self) -> str:
        return str(make_url(self.variables["DATABASE_URL"]).database)

    def rows(self, query: str) -> list[Any]:
        """What an administrator sees in its database."""
        url = make_url(self.server.url).set(database=self.database)
        kind = {"mysql": MariaDB, "postgresql": PostgreSQL}[url.get_backend_name()]
        return kind(url.render_as_string(hide_password=False), Path()).execute(query)

    def number(self, query: str) -> int:
        (row,) = self.rows(query)
        return int(next(iter(dict(row).values())))

    def sessions(self) -> int:
        return len(self.server.sessions(self.database))

    def worker(self, *options: str, **changes: str) -> Any:
        return self.service.working(*options, **self.variables | changes)

    def ask_for(self, tasks: int, kind: str, **changes: str) -> str:
        variables = self.variables | changes
        done = self.service.program("counting", str(tasks), kind, **variables)
        return done.stdout + done.stderr

    def work_off(self, tasks: int, *options: str) -> int:
        """Have so many done, and return how many connections there were at most."""
        self.rows("CREATE TABLE done (task int, pid int, session int)")
        most = 0

        def done() -> bool:
            nonlocal most
            # Ours of before may still be ending, and is not there twice.
            most = max(most, min(self.sessions() for _ in range(2)))
            return self.number("SELECT count(*) FROM done") >= tasks

        with self.worker("--include=counting", *options) as worker:
            with ThreadPoolExecutor() as pool:
                asked = pool.submit(self.ask_for, tasks, "count")
                seconds = until(done, f"{tasks} tasks are done")
            assert asked.result() == f"{tasks}\n"
            assert worker.stop() == 0

        print(f"{tasks} in {seconds:.1f} s, at most {most} connections")
        assert self.number("SELECT count(DISTINCT task) FROM done") == tasks
        said = lines(worker)
        assert [line["message"] for line in said].count("counting.count done") == tasks
        assert {line["levelname"] for line in said} == {"INFO"}
        return most

    def test(self, *names: str) -> subprocess.CompletedProcess[str]:
        """Run tests of its own, in a folder of their own."""
        with TemporaryDirectory() as folder:
            options = ("-q", f"--basetemp={folder}/own")
            files = (f"tests/{name}" for name in names)
            variables = self.variables | {"DATABASE_URL": self.server.url}
            command = ("python", "-m", "pytest", *options, *files)
            return self.service.command(*command, **variables)

    def payments(self) -> dict[str, int]:
        return {str(row["order_id"]): row["n"] for row in self.rows(PAYMENTS)}

    @contextmanager
    def held(self, order: str) -> Iterator[None]:
        """Lock its row, so that a task which pays it is at work until the end."""
        loop = asyncio.new_event_loop()
        url = make_url(self.server.url).set(database=self.database)
        connect = asyncpg.connect(url.render_as_string(hide_password=False))
        connection = loop.run_until_complete(connect)
        query = f"SELECT FROM orders WHERE id = '{order}' FOR UPDATE"
        for statement in ("BEGIN", query):
            loop.run_until_complete(connection.execute(statement))
        try:
            yield
        finally:
            loop.run_until_complete(connection.close())
            loop.close()


def lines(worker: Program) -> list[Any]:
    """Its log, without the warning that Celery prints to root."""
    text = worker.log.read_text().splitlines()
    return [json.loads(line) for line in text if line.startswith("{")]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as redis:
        redis.start()
        yield redis


@pytest.fixture
def shop_of(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
    server_of: Callable[[str], Server],
    redis: Redis,
    tmp_path: Path,
) -> Callable[..., Shop]:
    """The service with Celery, on a driver; its workers include tasks of the tests.

    The answer `celery_engine` decides about one module, as test_render.py shows.
    """

    def make(driver: str, engine: str = "persistent", **answers: Any) -> Shop:
        service = rendered({"driver": driver, "with_celery": True, **answers})
        source = service.folder / "src"
        if engine == "per_task":
            source = Path(shutil.copytree(source, tmp_path / "per_task"))
            module = ROOT / "variants" / "process" / "per_task.py"
            shutil.copy2(module, source / "shop" / "process.py")
        variables = database(driver) | {"CELERY_BROKER_URL": redis.url}
        variables |= {"PYTHONPATH": f"{source}:{PROGRAMS}"}
        return Shop(service, server_of(driver), variables)

    return make


@pytest.fixture
def audited(shop_of: Callable[..., Shop]) -> Callable[..., Shop]:
    """With its tables, and each payment written down."""

    def make(engine: str = "persistent") -> Shop:
        shop = shop_of("asyncpg", engine)
        shop.service.make("migrate", **shop.variables)
        for statement in AUDIT:
            shop.rows(statement)
        return shop

    return make


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

    clients = {client["database"] for client in pooler.ask("SHOW CLIENTS")}
    assert shop.database not in clients


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
        code = 'SEEN.set(Seen(from_token(header("read_after") or "")))'
        source = shop.service.changed(tmp_path / "src", "origin.py", code, "pass")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    for replica in cluster.replicas:
        replica.catch_up()
        replica.delay(2000)
    with shop.worker("--include=counting", "--concurrency=1") as worker:
        assert shop.ask_for(20, "look") == ""
        worker.wait_for_log("counting.look done", times=20)
        assert worker.stop() == 0

    missed = worker.log.read_text().count('"not found"')
    assert bool(missed) is not carries_position


def ordered(running: Running) -> str:
    return str(running.client.post("/orders", json=ORDER).json()["id"])


def promised(running: Running) -> str:
    order = ordered(running)
    request = {"X-Request-ID": f"pay-{order}"}
    answer = running.client.post(f"/orders/{order}/pay", headers=request)
    assert (answer.status_code, answer.json()) == (202, {"status": "paying"})
    return order


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
    with shop.worker("--concurrency=1", **HASTE) as worker:
        with shop.held(order):
            until(lambda: shop.number(WAITING), "the task is at work")
            end(worker, how)
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
    file = source / "worker_settings.py"
    text, changes = re.subn(rf'("{setting}": )True', r"\1False", file.read_text())
    assert changes
    file.write_text(text)
    shop.variables["PYTHONPATH"] = f"{source.parent}:{PROGRAMS}"

    with interrupted(shop, how):
        # Neither in the queue nor on record with the broker.
        for command in ("LLEN shop:celery", "HLEN shop:unacked"):
            until(partial(is_empty, redis, command), command)
    assert shop.payments() == {}


def figures(port: int) -> str:
    return httpx.get(f"http://127.0.0.1:{port}/metrics").text


def test_task_that_ends_its_process_is_given_up(shop_of: Callable[..., Shop]) -> None:
    """And does not come again and again; the worker goes on with the others."""
    shop, port = shop_of("asyncpg"), free_port()
    changes = {"CELERY_METRICS_PORT": str(port)}
    with shop.worker("--include=counting", "--concurrency=1", **changes) as worker:
        assert shop.ask_for(1, "crash") == "1\n"
        worker.wait_for_log("crash 0", times=2)
        assert shop.ask_for(2, "crash") == "2\n"
        for number, times in ((0, 4), (1, 2)):
            worker.wait_for_log(f"crash {number}", times)
        # Those of processes that have gone are forgotten.
        until(lambda: "in_progress{" not in figures(port), "none is at work")
        assert worker.stop() == 0

    assert worker.log.read_text().count("crash ") == 6


def test_each_entry_of_the_runbook_is_provoked(
    shop_of: Callable[..., Shop], redis: Redis
) -> None:
    """And the worker goes on."""
    shop = shop_of("asyncpg")
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    # Of who asks for a task: it goes along.
    shop.variables["CELERY_TASK_TIMEOUT_SECONDS"] = "3"
    with shop.worker("--include=counting", "--concurrency=1") as worker:
        for kind, words in (
            ("fail", "TaskFailed"),
            ("unknown", "Received unregistered task"),
            ("leave", "A task must not exit"),
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
    assert len(entries) == 7
    assert [words for words in entries if words not in said] == []


@pytest.mark.parametrize("kind", ["persistent", "per_task", "solo", "without a bound"])
def test_stop_waits_for_a_task_no_longer_than_its_bound(
    shop_of: Callable[..., Shop], redis: Redis, tmp_path: Path, kind: str
) -> None:
    """And the task has rolled back before its connection is closed."""
    shop = shop_of("asyncpg", "per_task" if kind == "per_task" else "persistent")
    pool = "solo" if kind == "solo" else "prefork"
    if kind == "without a bound":
        line = "    signals.worker_shutting_down.connect(_end_in_time)\n"
        source = shop.service.changed(tmp_path / "unbounded", "work.py", line, "")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    shop.rows("CREATE TABLE done (task int, pid int, session int)")
    options = ("--include=counting", "--concurrency=1", f"--pool={pool}")
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


@pytest.mark.parametrize("is_told", [True, False])
def test_worker_goes_on_after_the_broker_was_away_when_a_task_ended(
    audited: Callable[..., Shop],
    redis: Redis,
    tmp_path: Path,
    is_told: bool,  # noqa: FBT001
) -> None:
    """Else it would take the task for one that is at work, and ask for no other."""
    shop = audited()
    if not is_told:
        line = "if not tell.__self__.acknowledged:"
        file = "acknowledgement.py"
        source = shop.service.changed(tmp_path / "src", file, line, "if False:")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    with (
        shop.service.running(**shop.variables) as running,
        shop.worker("--concurrency=1") as worker,
    ):
        order = promised(running)
        with shop.held(order):
            until(lambda: shop.number(WAITING), "the task is at work")
            redis.kill()
        worker.wait_for_log("Couldn't ack")
        redis.start()
        another = promised(running)
        if is_told:
            until(lambda: another in shop.payments(), "the other one is paid")
        else:
            with pytest.raises(AssertionError, match="the other one is paid"):
                until(lambda: another in shop.payments(), "the other one is paid", 8)
        assert order in shop.payments()


def test_broker_is_verified(shop_of: Callable[..., Shop], tmp_path: Path) -> None:
    shop, stranger = shop_of("asyncpg"), tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    with EncryptedRedis(tmp_path / "encrypted") as redis:
        redis.start()
        other_name = redis.url.replace("localhost", "127.0.0.1")
        for url, trusted, taken in (
            (redis.url, redis.ca, 1),
            (redis.url, stranger, 0),
            (other_name, redis.ca, 0),
        ):
            changes = {URL: url, "CELERY_BROKER_SSLROOTCERT": str(trusted)}
            said = shop.ask_for(1, "count", **changes)
            assert said.startswith(f"{taken}\n")
            assert ("certificate verify failed" in said) is (not taken)


def test_promises_are_kept_whatever_becomes_of_the_broker(
    audited: Callable[..., Shop], redis: Redis, tmp_path: Path
) -> None:
    """It is gone for 10 s, then silent, and then loses all it has."""
    shop = audited()
    faster = ("SWEEP_SECONDS = 30", "SWEEP_SECONDS = 2")
    source = shop.service.changed(tmp_path / "src", "payments.py", *faster)
    shop.variables["PYTHONPATH"] = source
    kept: list[str] = []

    def are_kept() -> bool:
        return shop.payments().keys() == {*kept}

    with (
        shop.service.running(**shop.variables) as running,
        shop.worker("--concurrency=2") as worker,
        shop.service.working(command="beat", **shop.variables) as beat,
    ):
        for fault, heal, outage in (
            (redis.kill, redis.start, 10),
            (redis.freeze, redis.thaw, 5),
        ):
            fault()
            began, before = time.monotonic(), len(kept)
            while time.monotonic() - began < outage:
                kept.append(promised(running))
                running.wait_for_log("not enqueued", times=len(kept))
            assert running.client.get("/readyz").status_code == 200
            heal()
            seconds = until(are_kept, "all are paid")
            new = len(kept) - before
            print(f"{fault.__name__}: {new} promises kept {seconds:.1f} s later")

        worker.process.send_signal(signal.SIGSTOP)
        kept += [promised(running) for _ in range(3)]
        # One of them may be on its way to the worker, which has asked for it.
        until(lambda: redis.ask(QUEUED).count('"payments.pay"') >= 2, "they are queued")
        redis.ask("FLUSHALL")
        worker.process.send_signal(signal.SIGCONT)
        print(f"emptied: kept {until(are_kept, 'all are paid'):.1f} s later")
        assert (worker.stop(), beat.stop()) == (0, 0)

    assert shop.payments() == dict.fromkeys(kept, 1)


URL = "CELERY_BROKER_URL"
NOWHERE = {"DATABASE_URL": "postgresql://u:secret@127.0.0.1:1/shop"}
WORK = ("python", "-m", "shop.work")
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
    """If each ended it, it would find the second one while it halts for the first."""
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    text = (shop.folder / "gunicorn.conf.py").read_text()
    code = 'sys.exit(3 if os.environ["WORKER"] == "1" else 0)'
    assert text.count(code) == 1
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(text if is_first_alone else text.replace(code, "sys.exit(3)"))
    variables = {**NOWHERE, URL: "amqp://u:secret@h"}
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
    """Though nobody has asked how."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")


def test_port_that_is_taken_stops_the_start_in_one_sentence(
    shop_of: Callable[..., Shop], redis: Redis
) -> None:
    shop = shop_of("asyncpg")
    port = {"CELERY_METRICS_PORT": str(redis.port)}
    done = shop.service.command(*WORK, **shop.variables | port)

    assert done.returncode == 1
    sentence = f"CELERY_METRICS_PORT={redis.port}: Address already in use; 0 is none.\n"
    assert done.stderr == sentence


class Protection(NamedTuple):
    """A piece of code, and a test of the service's own that fails without it."""

    file: str
    code: str
    without: str
    test: str


PROTECTIONS = {
    "request id of a task": Protection(
        "origin.py",
        'request_id.set(header("request_id"))',
        "pass",
        "test_worker.py::test_task_runs_with_the_id_of_the_request",
    ),
    "another try": Protection(
        "worker.py",
        "if fault in TRANSIENT:",
        "if False:",
        "test_worker.py::test_what_may_succeed_is_tried_again",
    ),
    "conditional payment": Protection(
        "payments.py",
        ".where(Order.id == order_id, Order.status == OrderStatus.PAYING)",
        ".where(Order.id == order_id)",
        "test_sweep.py::test_order_that_was_not_promised_is_not_paid",
    ),
    "sweep of what is not done": Protection(
        "payments.py",
        ".where(Order.status == OrderStatus.PAYING)",
        "",
        "test_sweep.py::test_what_the_queue_has_lost_comes_back",
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
