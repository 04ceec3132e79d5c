"""Tasks and a broker that is away, silent, emptied or a stranger."""

import shutil
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from tests.support.rendering import Answers
from tests.support.servers import EncryptedRedis, Redis
from tests.support.service import PROGRAMS, Service
from tests.support.task_shop import WAITING, Shop, promised, until

pytestmark = pytest.mark.boot

QUEUED = "LRANGE shop:celery 0 -1"


class Refusal(NamedTuple):
    """Commands after which a broker that can be reached works no more; its words."""

    fault: tuple[str, ...]
    heal: str
    words: str


SAVE_FAILED = "rdb_last_bgsave_status:err"
CUT_OFF = "CLIENT KILL TYPE normal SKIPME yes"
REFUSALS = {
    "replica": Refusal(
        ("REPLICAOF 127.0.0.1 1",),
        "REPLICAOF NO ONE",
        "You can't write against a read only replica",
    ),
    "permission": Refusal(
        ("ACL SETUSER default -@write",),
        "ACL SETUSER default +@all",
        "has no permissions to run the",
    ),
    "password": Refusal(
        ("CONFIG SET requirepass changed", CUT_OFF),
        'CONFIG SET requirepass ""',
        "Authentication required",
    ),
    "clients": Refusal(
        ("CONFIG SET maxclients 1", CUT_OFF),
        "CONFIG SET maxclients 1000",
        "max number of clients reached",
    ),
    "memory": Refusal(
        ("CONFIG SET maxmemory 1",),
        "CONFIG SET maxmemory 0",
        "command not allowed when used memory > 'maxmemory'",
    ),
    "disk": Refusal(
        ('CONFIG SET save "3600 1"', "BGSAVE"),
        "CONFIG SET stop-writes-on-bgsave-error no",
        "unable to persist to disk",
    ),
}


LOADING = "Redis is loading the dataset in memory"


@contextmanager
def loading(port: int) -> Iterator[None]:
    """In the place of a broker that has just started, and reads what it had saved."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(65_536):
                self.request.sendall(f"-LOADING {LOADING}\r\n".encode())

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", port), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_broker_that_is_silent_is_named_as_the_reason(
    rendered: Callable[[Answers], Service],
) -> None:
    shop = rendered({"driver": "asyncpg", "with_celery": True})
    program = (
        "import asyncio, logging; from shop.main import create_app;"
        "from shop.tasks import greet; from shop.worker import app;"
        "create_app(); app.PUBLISH_SECONDS = 0.2; logging.basicConfig();"
        "print(asyncio.run(greet.enqueue('ada')))"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        urls = {
            "CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0",
            "DATABASE_URL": "postgresql://u@127.0.0.1:1/shop",
        }
        done = shop.python("-c", program, **urls)

    assert done.stdout == "False\n", done.stderr
    assert "task tasks.greet not published: TimeoutError" in done.stderr


@pytest.mark.parametrize("is_reported", [True, False])
def test_worker_goes_on_after_the_broker_was_away_when_a_task_ended(
    audited: Callable[..., Shop],
    redis: Redis,
    tmp_path: Path,
    is_reported: bool,  # noqa: FBT001
) -> None:
    """Else the worker would take the task for one at work, and ask for no other."""
    shop = audited()
    if not is_reported:
        code, file = "if not ack.__self__.acknowledged:", "worker/consumer.py"
        source = shop.service.changed(tmp_path / "src", file, code, "if False:")
        shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    with shop.service.running(**shop.variables) as running, ExitStack() as stack:
        order = promised(running)
        with shop.held(order):  # before a worker is there to pay it
            patient = {"DATABASE_LOCK_TIMEOUT_SECONDS": "4.5"}
            worker = stack.enter_context(shop.worker("--concurrency=1", **patient))
            until(lambda: shop.number(WAITING), "the task is at work")
            redis.kill()
        worker.wait_for_log("Couldn't ack")
        redis.start()
        another = promised(running)
        if is_reported:
            until(lambda: another in shop.payments(), "the other one is paid")
        else:
            with pytest.raises(AssertionError, match="the other one is paid"):
                until(lambda: another in shop.payments(), "the other one is paid", 8)
        assert order in shop.payments()


def test_broker_that_refuses_is_waited_for(
    audited: Callable[..., Shop], redis: Redis, tmp_path: Path
) -> None:
    """By one worker, in one way after the other, and by the requests that publish."""
    shop = audited()
    sooner = "MAX_PAUSE_SECONDS = 15", "MAX_PAUSE_SECONDS = 1"
    source = shop.service.changed(tmp_path / "src", "worker/consumer.py", *sooner)
    shop.variables["PYTHONPATH"] = source
    redis.folder.rmdir()  # so that it cannot be saved
    kept: list[str] = []

    def are_kept() -> bool:
        return shop.payments().keys() == {*kept}

    with (
        # One process, and so one connection that the next promise finds mended.
        shop.service.running("--workers=1", **shop.variables) as running,
        shop.worker("--concurrency=1") as worker,
        redis.console() as console,
    ):
        for number, (name, refusal) in enumerate(REFUSALS.items(), 1):
            worker.process.send_signal(signal.SIGSTOP)
            kept += [promised(running) for _ in range(3)]
            running.wait_for_log("/pay 202", times=4 * number - 1)  # and published
            for command in refusal.fault:
                assert console(command)[0] in "+:", (name, command)
            if name == "disk":
                until(lambda: SAVE_FAILED in console("INFO persistence"), name)
            before = worker.log.read_text().count(refusal.words)
            worker.process.send_signal(signal.SIGCONT)
            worker.wait_for_log(refusal.words, before + 1)
            promised(running)  # and not published
            running.wait_for_log("not published", times=number)
            if CUT_OFF not in refusal.fault:
                assert refusal.words in running.log.read_text(), name
            assert console(refusal.heal) == "+OK", name
            print(f"{name}: {until(are_kept, name):.1f} s later")
        redis.kill()
        with loading(redis.port):
            worker.wait_for_log(LOADING)
            promised(running)
            running.wait_for_log("not published", times=len(REFUSALS) + 1)
        redis.folder.mkdir()
        redis.start()
        kept.append(promised(running))
        print(f"loading: {until(are_kept, 'loading'):.1f} s later")
        assert worker.stop() == 0

    log = worker.log.read_text()
    assert "Unrecoverable error" not in log
    assert "Frequent restarts" not in log
    assert "broker keeps no record of task payments.pay" in log
    assert shop.payments() == dict.fromkeys(kept, 1)


CODES = {
    "worker/settings.py": ('"broker_channel_error_retry": True,', ""),
    "worker/__main__.py": (
        "    command_line(",
        "    from .app import celery; celery.start(",
    ),
}


@pytest.mark.parametrize(("changes", "is_told"), [(1, True), (2, False)])
def test_worker_that_cannot_go_on_ends_with_an_error(
    shop_of: Callable[..., Shop],
    redis: Redis,
    tmp_path: Path,
    changes: int,
    is_told: bool,  # noqa: FBT001
) -> None:
    """As it does without the setting that lets it outlast an answer of the broker."""
    shop = shop_of("asyncpg")
    source = tmp_path / "src"
    shutil.copytree(shop.service.folder / "src", source)
    for file, (code, instead) in [*CODES.items()][:changes]:
        path = source / "shop" / file
        text = path.read_text()
        assert text.count(code) == 1
        path.write_text(text.replace(code, instead))
    shop.variables["PYTHONPATH"] = f"{source}:{PROGRAMS}"
    with shop.worker("--concurrency=1") as worker:
        redis.ask(REFUSALS["replica"].fault[0])
        code = worker.process.wait(timeout=30)

    assert "Unrecoverable error" in worker.log.read_text()
    assert (code != 0) is is_told


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
            changes = {
                "CELERY_BROKER_URL": url,
                "CELERY_BROKER_SSLROOTCERT": str(trusted),
            }
            said = shop.ask_for(1, "count", **changes)
            assert said.startswith(f"{taken}\n")
            assert ("certificate verify failed" in said) is (not taken)


def test_promises_are_kept_whatever_becomes_of_the_broker(
    audited: Callable[..., Shop], redis: Redis, tmp_path: Path
) -> None:
    """The broker is gone for 10 s, then silent, and then loses all it has."""
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
                running.wait_for_log("not published", times=len(kept))
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
