"""A service with Celery and its database: the worker, its tasks and their outcome."""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import make_url

from tests.support.rendered_tests import all_tests
from tests.support.servers import MariaDB, PostgreSQL, Server
from tests.support.service import ORDER, PATIENT, Program, Running, Service

PAYMENTS = "SELECT order_id, count(*) AS n FROM paid GROUP BY order_id"
# Sessions that wait for a row which `held` has locked.
WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    " AND datname = current_database()"
)


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> float:
    """Wait for it; returns the seconds that it took."""
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

    def settled_sessions(self) -> int:
        """Those that stay: one of ours, or of a task, may still be ending."""
        fewest, until_ = self.sessions(), time.monotonic() + 1
        while fewest > 1 and time.monotonic() < until_:
            time.sleep(0.05)
            fewest = min(fewest, self.sessions())
        return fewest

    def worker(self, *options: str, **changes: str) -> Any:
        return self.service.working(*options, **self.variables | changes)

    def ask_for(self, tasks: int, kind: str, **changes: str) -> str:
        variables = self.variables | changes
        done = self.service.program("celery_tasks", str(tasks), kind, **variables)
        return done.stdout + done.stderr

    def work_off(self, tasks: int, *options: str) -> int:
        """Have so many done, and return how many connections there were at most."""
        self.rows("CREATE TABLE done (task int, pid int, session int)")
        most = 0

        def done() -> bool:
            nonlocal most
            most = max(most, self.settled_sessions())
            return self.number("SELECT count(*) FROM done") >= tasks

        options = ("--include=celery_tasks", *options)
        with self.worker(*options, **PATIENT) as worker:
            with ThreadPoolExecutor() as pool:
                asked = pool.submit(self.ask_for, tasks, "count")
                seconds = until(done, f"{tasks} tasks are done")
            assert asked.result() == f"{tasks}\n"
            assert worker.stop() == 0

        print(f"{tasks} in {seconds:.1f} s, at most {most} connections")
        assert self.number("SELECT count(DISTINCT task) FROM done") == tasks
        said = lines(worker)
        messages = [line["message"] for line in said]
        assert messages.count("celery_tasks.count done") == tasks
        assert not (others := [each for each in said if each["level"] != "INFO"]), (
            others
        )
        return most

    def test(self, *names: str) -> subprocess.CompletedProcess[str]:
        """Run tests of its own, or of tests/rendered, in a folder of their own."""
        with TemporaryDirectory() as folder, all_tests(self.service) as tests:
            options = ("-q", f"--basetemp={folder}/own")
            files = (f"{tests}/{name}" for name in names)
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
    said = [json.loads(line) for line in text if line.startswith("{")]
    return [line for line in said if "superuser privileges" not in line["message"]]


def ordered(running: Running) -> str:
    return str(running.client.post("/orders", json=ORDER).json()["id"])


def promised(running: Running) -> str:
    order = ordered(running)
    request = {"X-Request-ID": f"pay-{order}"}
    answer = running.client.post(f"/orders/{order}/pay", headers=request)
    assert (answer.status_code, answer.json()) == (202, {"status": "paying"})
    return order
