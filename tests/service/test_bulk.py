"""Bulk insert and export: any number of rows, little memory, and no leak."""

import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.servers import DRIVERS, NETWORKED_ON, Server
from tests.support.service import NO_TLS, ORDER, Running, Service, wait_until

pytestmark = pytest.mark.boot

MANY = 500_000
# Of these the kernel cannot hold an export on its way to a reader that does not read.
WIDE, WIDTH = 50_000, 200
INSERTED = 1_000_000
IMPORTED = 5_000
# More than a statement may take (5 s) and a transaction may be idle (10 s).
PAUSE_SECONDS = 15
MEGABYTE = 1024 * 1024
# A tenth of what the rows would take.
LITTLE = 30 * MEGABYTE
EXPORT = "/orders/export"
IMPORT = "/orders/import"
JSON = {"Content-Type": "application/json"}

# The id of an order is its number, and the last one is the newest.
FILL = {
    "postgresql": """
        INSERT INTO orders (id, customer, status, created_at, updated_at)
        SELECT lpad(to_hex(n), 32, '0')::uuid, rpad('ada ' || n, {width}, '.'), 'new',
               timestamptz '2020-01-01' + n * interval '1 s', now()
        FROM generate_series(1, {rows}) AS n""",
    "mysql": """
        INSERT INTO orders (id, customer, status, created_at, updated_at)
        SELECT lpad(hex(seq), 32, '0'), rpad(concat('ada ', seq), {width}, '.'), 'new',
               timestamp '2020-01-01 00:00:00' + INTERVAL seq SECOND, now()
        FROM seq_1_to_{rows}""",
    "sqlite": """
        WITH RECURSIVE series (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {rows})
        INSERT INTO orders (id, customer, status, created_at, updated_at)
        SELECT printf('%032x', n),
               substr('ada ' || n || printf('%.*c', {width}, '.'), 1, {width}), 'new',
               strftime('%Y-%m-%d %H:%M:%S.000000', 1577836800 + n, 'unixepoch'),
               '2020-01-01 00:00:00.000000'
        FROM series""",
}
# Sessions within a transaction or a statement, and the end of one of them.
AT_WORK = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " AND state <> 'idle'",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE()"
    " AND id <> CONNECTION_ID() AND command <> 'Sleep'",
}
KILL = {"postgresql": "SELECT pg_terminate_backend({id})", "mysql": "KILL {id}"}


@dataclass(frozen=True)
class Orders:
    """A database with orders, on a connection beside those of the service."""

    dialect: str
    variables: dict[str, str]
    server: Server | None = None

    def execute(self, statement: str) -> list[Any]:
        if self.server:
            return [tuple(row.values()) for row in self.server.execute(statement)]
        path = self.variables["DATABASE_PATH"]
        with closing(sqlite3.connect(path, timeout=1)) as connection, connection:
            return connection.execute(statement).fetchall()

    def count(self, customer: str) -> tuple[int, int]:
        ((orders, lines),) = self.execute(
            "SELECT count(*), count(order_id) FROM orders"  # noqa: S608
            f" LEFT JOIN order_lines ON id = order_id WHERE customer = '{customer}'"
        )
        return orders, lines

    def at_work(self) -> list[int]:
        return [row[0] for row in self.execute(AT_WORK[self.dialect])]

    def sessions(self) -> int:
        assert self.server
        return len(self.server.sessions(str(make_url(self.server.url).database)))


class Serving(NamedTuple):
    driver: str
    running: Running
    orders: Orders

    @property
    def worker(self) -> Path:
        pid = self.running.process.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return Path(f"/proc/{worker}")

    def reader(self, *, bytes_at_once: int = 65_536) -> httpx.Client:
        """A client that takes what is sent a little at a time."""
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, bytes_at_once)]
        return httpx.Client(
            base_url=self.running.client.base_url,
            transport=httpx.HTTPTransport(verify=NO_TLS, socket_options=options),
            timeout=60,
        )

    def in_use(self) -> float:
        answer = self.running.client.get("/metrics")
        found = re.search(r'database_pool_in_use{pool="primary"} (.+)\n', answer.text)
        assert found, f"{answer}\n{answer.text}\n{self.running.log.read_text()}"
        return float(found[1])

    def memory(self, name: str = "VmRSS") -> int:
        found = re.search(rf"{name}:\s+(\d+) kB", (self.worker / "status").read_text())
        assert found
        return int(found[1]) * 1024

    @contextmanager
    def little_memory(self) -> Iterator[None]:
        (self.worker / "clear_refs").write_text("5")  # forget the peak so far
        before = self.memory()
        yield
        growth = self.memory("VmHWM") - before
        print(f"{self.driver}: {growth / MEGABYTE:.1f} MB more")
        assert growth < LITTLE

    @contextmanager
    def no_leak(self) -> Iterator[None]:
        """No connection, no transaction, no warning."""
        start = len(self.running.log.read_text())
        yield
        wait_until(lambda: self.in_use() == 0)
        if self.orders.server:
            wait_until(lambda: self.orders.at_work() == [])
        assert self.running.client.get("/orders?limit=1").status_code == 200
        assert warnings(self.running.log.read_text()[start:]) == []


def warnings(log: str) -> list[str]:
    """Warnings and errors; those of the interpreter are no JSON."""
    return [
        line
        for line in log.splitlines()
        if not line.startswith("{") or json.loads(line)["level"] != "INFO"
    ]


@pytest.fixture(scope="module")
def orders_of(
    service: Callable[[str], Service],
    server_of: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Orders]:
    """Wide orders for one driver, or many for all drivers of a server."""
    made: dict[str, Orders] = {}

    def orders_of(driver: str, *, many: bool = False) -> Orders:
        dialect = DRIVERS[driver]["dialect"]
        name = f"many_{dialect}" if many else f"wide_{driver}"
        if name not in made:
            if dialect == "sqlite":
                path = tmp_path_factory.mktemp("orders") / f"{name}.sqlite3"
                orders = Orders(dialect, {"DATABASE_PATH": str(path)})
            else:
                server = server_of(driver)
                variables = {"DATABASE_URL": server.database(name)}
                url = make_url(server.url).set(database=name)
                direct = url.render_as_string(hide_password=False)
                orders = Orders(dialect, variables, replace(server, url=direct))
            service(driver).migrate(**orders.variables)
            rows, width = (MANY, 20) if many else (WIDE, WIDTH)
            orders.execute(FILL[dialect].format(rows=rows, width=width))
            made[name] = orders
        return made[name]

    return orders_of


@contextmanager
def serve(
    driver: str, shop: Service, orders: Orders, **variables: str
) -> Iterator[Serving]:
    variables = {
        "WEB_CONCURRENCY": "1",
        # Its connections would be counted.
        "DATABASE_BUDGET_CHECK": "off",
        "PYTHONWARNINGS": "always::ResourceWarning",
        # Several start at once: 30 s may be too few for all imports.
        "GUNICORN_CMD_ARGS": "--timeout=180",
        **orders.variables,
        **variables,
    }
    with shop.running(**variables) as running:
        yield Serving(driver, running, orders)


@pytest.fixture(scope="module")
def serving(
    service: Callable[[str], Service],
    orders_of: Callable[..., Orders],
) -> Iterator[Callable[[str], Serving]]:
    """The service on a driver, with wide orders."""
    started: dict[str, Serving] = {}
    with ExitStack() as stack:

        def serving(driver: str) -> Serving:
            if driver not in started:
                shop, orders = service(driver), orders_of(driver)
                one = serve(driver, shop, orders, DATABASE_POOL_SIZE="40")
                started[driver] = stack.enter_context(one)
            return started[driver]

        yield serving


def body(customer: str, number: int) -> Iterator[bytes]:
    """A list of orders, in many parts."""
    order = json.dumps(ORDER | {"customer": customer}).encode()
    yield b"["
    for _ in range(number // 100 - 1):
        yield (order + b",") * 100
    yield (order + b",") * 99 + order + b"]"


def first_part(reader: httpx.Client) -> None:
    """Begin to read an export, and leave."""
    with reader.stream("GET", EXPORT) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_raw())


def test_many_orders_leave_at_the_pace_of_their_reader(
    service: Callable[[str], Service],
    orders_of: Callable[..., Orders],
    tmp_path: Path,
) -> None:
    """A reader pauses for longer than any limit, writers go on, and it gets all of the
    snapshot. Before and beside it the same without a line of the code, to see it fail.
    """
    shops = {driver: service(driver) for driver in DRIVERS}
    orders = {driver: orders_of(driver, many=True) for driver in DRIVERS}
    # Another limit, of 60 s else; it holds for new sessions.
    orders["aiomysql"].execute("SET GLOBAL net_write_timeout = 5")
    all_started = threading.Barrier(len(DRIVERS))  # each export has a snapshot

    def start(driver: str, **variables: str) -> Any:
        return serve(driver, shops[driver], orders[driver], **variables)

    def get_all(driver: str) -> None:
        with start(driver) as serving:
            first_part(serving.running.client)  # so that all has been used once

            def pause() -> None:
                all_started.wait(timeout=180)
                write_on(serving, paid=MANY - [*DRIVERS].index(driver))

            with serving.little_memory():
                assert read(serving, pause) == list(range(1, MANY + 1))

    def exceed_a_timeout(driver: str) -> None:
        line = "await extend_timeouts(connection, seconds)"
        source = shops[driver].changed(tmp_path / driver, "db/bulk.py", line, "pass")
        limits = {"DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS": "5"}
        with (
            start(driver, PYTHONPATH=source, **limits) as serving,
            serving.reader() as reader,
            reader.stream("GET", EXPORT) as answer,
        ):
            parts = answer.iter_raw()
            next(parts)
            # However long the buffers on the way take to be full.
            wait_until(lambda: orders[driver].at_work() == [], seconds=60)
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                list(parts)

    def buffer_all(driver: str) -> None:
        line = "self.transport.pause_reading()"
        source = shops[driver].changed(
            tmp_path / driver, "db/engine/driver.py", line, "pass"
        )
        with start(driver, PYTHONPATH=source) as serving:
            # All of them may have come by the time that the first part leaves.
            before = serving.memory()
            with serving.reader() as reader, reader.stream("GET", EXPORT) as answer:
                # A reference: without it the client would close the connection.
                parts = answer.iter_raw()
                next(parts)
                # Five other jobs want the processors: what takes 0.1 s may last long.
                wait_until(lambda: serving.memory() - before > LITTLE, seconds=60)

    with ThreadPoolExecutor(2) as pool:  # on two servers, which have no other work yet
        list(pool.map(exceed_a_timeout, ("psycopg", "aiomysql")))
    with ThreadPoolExecutor(len(DRIVERS) + 1) as pool:
        jobs = [pool.submit(get_all, driver) for driver in DRIVERS]
        jobs += [pool.submit(buffer_all, "asyncmy")]
    for job in jobs:
        if not isinstance(job.exception(), threading.BrokenBarrierError):
            job.result()
    assert not all_started.broken


@pytest.mark.parametrize(
    ("driver", "server"),
    [("asyncpg", "postgresql"), ("aiomysql", "mariadb"), ("asyncmy", "mysql")],
)
def test_statement_of_an_export_may_take_longer(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    limits = {
        "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
        "DATABASE_STATEMENT_TIMEOUT_SECONDS": "2.5",
        "DATABASE_CLIENT_TIMEOUT_SECONDS": "2.8",
    }
    variables = limits | database(driver, server)
    done = service(driver).program("slow_export", **variables)

    assert done.stdout == "2\n", done.stderr


def read(serving: Serving, pause: Callable[[], None]) -> list[int]:
    """The numbers of the new orders in an export."""
    numbers: list[int] = []
    has_paused = False
    with serving.running.client.stream("GET", EXPORT, timeout=60) as answer:
        rest = b""
        for part in answer.iter_raw():
            *lines, rest = (rest + part).split(b"\r\n")
            numbers += [int(line[24:36], 16) for line in lines if b",new," in line]
            if len(numbers) > MANY // 5 and not has_paused:
                has_paused = True
                pause()
    return numbers


def write_on(serving: Serving, paid: int) -> None:
    client = serving.running.client
    until = time.monotonic() + PAUSE_SECONDS
    order = f"00000000-0000-0000-0000-{paid:012x}"
    assert client.post(f"/orders/{order}/pay").status_code == 204
    while time.monotonic() < until:
        # One that had to wait for a lock would be refused.
        assert client.post("/orders", json=ORDER).status_code == 201
        time.sleep(1)


@pytest.mark.parametrize(("driver", "server"), [*NETWORKED_ON, ("aiosqlite", "")])
def test_bulk_insert_of_a_million_rows_takes_little_memory_and_is_all_or_none(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    arguments = ("bulk_inserts", str(INSERTED))
    done = service(driver).program(*arguments, **database(driver, server))

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    growth = found.pop("growth")
    print(f"{driver}: {growth / MEGABYTE:.1f} MB more")
    assert growth < LITTLE
    assert found == {
        "loaded": INSERTED,
        "pool": [0, 0],
        "succeed": [None, 3000],
        "fail": ["ZeroDivisionError", 0],
        "fail_and_go_on": ["InvalidRequestError", 0],
        "be_cancelled": ["TimeoutError", 0],
        "lose_the_connection": ["PendingRollbackError", 0],
    }


@pytest.mark.parametrize("driver", ["asyncpg", "aiomysql"])
def test_without_the_check_a_bulk_insert_commits_after_a_failed_statement(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    driver: str,
) -> None:
    """MySQL would commit the other rows, and PostgreSQL roll back without an error."""
    shop = service(driver)
    check = 'not connection.invalidated and connection.info.get("failed")'
    source = shop.changed(tmp_path / "src", "db/orm/commits.py", check, "False")
    variables = database(driver) | {"PYTHONPATH": source}
    done = shop.program("bulk_inserts", "1000", **variables)

    assert done.returncode == 0, done.stderr
    rows = 0 if driver == "asyncpg" else 3000
    assert json.loads(done.stdout)["fail_and_go_on"] == [None, rows]


@pytest.mark.parametrize("driver", DRIVERS)
def test_import_waits_for_its_sender_without_a_connection(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)
    client = shop.running.client
    client.post(IMPORT, json=[ORDER | {"customer": "warm"}]).raise_for_status()

    def parts() -> Iterator[bytes]:
        every = body("eve", IMPORTED)
        for _ in range(IMPORTED // 200):
            yield next(every)
        wait_until(lambda: shop.in_use() == 0)
        yield from every

    with shop.no_leak():
        answer = client.post(IMPORT, content=parts(), headers=JSON, timeout=60)

    assert answer.json() == {"imported": IMPORTED}
    assert shop.orders.count("eve") == (IMPORTED, IMPORTED)
    shop.orders.execute("DELETE FROM order_lines")
    shop.orders.execute("DELETE FROM orders WHERE customer IN ('eve', 'warm')")


@pytest.mark.parametrize("driver", DRIVERS)
def test_sender_that_leaves_imports_nothing(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)

    def parts() -> Iterator[bytes]:
        every = body("mallory", 2000)
        for _ in range(10):
            yield next(every)
        raise ZeroDivisionError

    with shop.no_leak():
        with pytest.raises(ZeroDivisionError):
            shop.running.client.post(IMPORT, content=parts(), headers=JSON)
        # The status is that of FastAPI, for a body that cannot be read to its end.
        wait_until(lambda: f"POST {IMPORT} 400" in shop.running.log.read_text())

    assert shop.orders.count("mallory") == (0, 0)


def test_import_of_an_endless_body_takes_little_memory(
    serving: Callable[[str], Serving],
) -> None:
    shop = serving("aiosqlite")

    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * MEGABYTE

    with shop.no_leak(), shop.little_memory():
        answer = shop.running.client.post(
            IMPORT, content=parts(), headers=JSON, timeout=60
        )

    assert answer.status_code == 413


@pytest.mark.parametrize("driver", DRIVERS)
def test_readers_that_leave_leak_nothing(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)

    def leave(_: int) -> None:
        with shop.reader() as reader:
            first_part(reader)

    # As many as have a turn at once: another would wait for one, and may be rejected.
    with shop.no_leak(), ThreadPoolExecutor(2) as readers:
        list(readers.map(leave, range(50)))

    if shop.orders.server:
        # Those in the pool; the connection of an export is closed after it.
        wait_until(lambda: shop.orders.sessions() <= 2)


@pytest.mark.parametrize(
    "driver", [name for name, facts in DRIVERS.items() if facts["dialect"] in KILL]
)
def test_export_whose_connection_is_lost_does_not_look_complete(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)
    with shop.reader() as reader, reader.stream("GET", EXPORT) as answer:
        parts = answer.iter_raw()
        next(parts)
        (session,) = shop.orders.at_work()
        shop.orders.execute(KILL[shop.orders.dialect].format(id=session))
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
            list(parts)

    with shop.no_leak():
        shop.running.client.get("/orders").raise_for_status()


def test_readers_that_stop_reading_hold_a_quarter_of_the_pool_for_a_time(
    service: Callable[[str], Service],
    orders_of: Callable[..., Orders],
) -> None:
    limits = {
        "DATABASE_POOL_SIZE": "8",
        "DATABASE_EXPORT_TIMEOUT_SECONDS": "20",
        "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "3",
    }

    def stop_reading(driver: str) -> None:
        shop, orders = service(driver), orders_of(driver)
        with (
            serve(driver, shop, orders, **limits) as serving,
            serving.reader() as reader,
            ExitStack() as streams,
        ):
            stuck = []
            for _ in range(2):
                answer = streams.enter_context(reader.stream("GET", EXPORT))
                stuck.append(answer.iter_raw())
                next(stuck[-1])
            began = time.monotonic()
            refused = reader.get(EXPORT)
            wait_until(lambda: serving.in_use() == 2)
            other = reader.get("/orders?limit=1")
            wait_until(lambda: serving.in_use() == 0, seconds=40)
            took = time.monotonic() - began
            first_part(reader)

            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"] == "urn:problem:busy"
            assert other.status_code == 200
            assert 3 < took < 40
            for parts in stuck:
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                    list(parts)

    for driver in DRIVERS:
        orders_of(driver)
    with ThreadPoolExecutor(len(DRIVERS)) as pool:
        list(pool.map(stop_reading, DRIVERS))
