"""Import and export: any number of rows, little memory, and nothing left behind."""

import json
import re
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.servers import DRIVERS, Server
from tests.support.service import ORDER, Running, Service, wait_until

pytestmark = pytest.mark.boot

MANY = 500_000
# Of these the kernel cannot hold an export on its way to a reader that does not read.
WIDE, WIDTH = 50_000, 200
IMPORTED = 30_000
# More than a statement may take (5 s) and a transaction may be idle (10 s).
PAUSE_SECONDS = 15
MEGABYTE = 1024 * 1024
# A tenth of what the rows would take.
LITTLE = 30 * MEGABYTE
EXPORT = "/orders/export"
IMPORT = "/orders/import"
COLUMNS = b"customer,sku,quantity,price_cents,note\n"

# The id of an order is its number, and the last one is the newest.
FILL = {
    "postgresql": """
        INSERT INTO orders (id, customer, status, created_at)
        SELECT lpad(to_hex(n), 32, '0')::uuid, rpad('ada ' || n, {width}, '.'), 'new',
               timestamptz '2020-01-01' + n * interval '1 s'
        FROM generate_series(1, {rows}) AS n""",
    "mysql": """
        INSERT INTO orders (id, customer, status, created_at)
        SELECT lpad(hex(seq), 32, '0'), rpad(concat('ada ', seq), {width}, '.'), 'new',
               timestamp '2020-01-01 00:00:00' + INTERVAL seq SECOND
        FROM seq_1_to_{rows}""",
    "sqlite": """
        WITH RECURSIVE series (n) AS
            (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {rows})
        INSERT INTO orders (id, customer, status, created_at)
        SELECT printf('%032x', n),
               substr('ada ' || n || printf('%.*c', {width}, '.'), 1, {width}), 'new',
               strftime('%Y-%m-%d %H:%M:%S.000000', 1577836800 + n, 'unixepoch')
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
    """A database with orders, asked by another way than through the service."""

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
    folder: Path  # for temporary files

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
            transport=httpx.HTTPTransport(socket_options=options),
            timeout=60,
        )

    def in_use(self) -> float:
        text = self.running.client.get("/metrics").text
        found = re.search(r'database_pool_in_use{pool="primary"} (.+)\n', text)
        assert found
        return float(found[1])

    def temporary_files(self) -> list[str]:
        """Those that have lost their name as well."""
        found = [str(path) for path in self.folder.iterdir()]
        for descriptor in (self.worker / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found.append(str(descriptor.readlink()))
        return [path for path in found if path.startswith(str(self.folder))]

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
    def nothing_left(self) -> Iterator[None]:
        """No connection, no transaction, no file, no complaint."""
        said = len(self.running.log.read_text())
        yield
        wait_until(lambda: self.in_use() == 0)
        wait_until(lambda: not self.temporary_files())
        if self.orders.server:
            wait_until(lambda: self.orders.at_work() == [])
        began = time.monotonic()
        assert self.running.client.get("/orders?limit=1").status_code == 200
        assert time.monotonic() - began < 3
        assert complaints(self.running.log.read_text()[said:]) == []


def complaints(log: str) -> list[str]:
    """Warnings and worse, and the interpreter's own, which are no JSON."""
    return [
        line
        for line in log.splitlines()
        if not line.startswith("{") or json.loads(line)["levelname"] != "INFO"
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
            service(driver).make("migrate", **orders.variables)
            rows, width = (MANY, 20) if many else (WIDE, WIDTH)
            orders.execute(FILL[dialect].format(rows=rows, width=width))
            made[name] = orders
        return made[name]

    return orders_of


@contextmanager
def serve(
    driver: str, shop: Service, orders: Orders, folder: Path, **variables: str
) -> Iterator[Serving]:
    folder.mkdir()
    variables = {
        "WEB_CONCURRENCY": "1",
        "TMPDIR": str(folder),
        "PYTHONWARNINGS": "always::ResourceWarning",
        **orders.variables,
        **variables,
    }
    with shop.running(**variables) as running:
        yield Serving(driver, running, orders, folder)


@pytest.fixture(scope="module")
def serving(
    service: Callable[[str], Service],
    orders_of: Callable[..., Orders],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Serving]]:
    """The service on a driver, with wide orders and at most 10 exports at once."""
    started: dict[str, Serving] = {}
    with ExitStack() as stack:

        def serving(driver: str) -> Serving:
            if driver not in started:
                shop, orders = service(driver), orders_of(driver)
                folder = tmp_path_factory.mktemp(driver) / "temporary"
                one = serve(driver, shop, orders, folder, DATABASE_POOL_SIZE="40")
                started[driver] = stack.enter_context(one)
            return started[driver]

        yield serving


def csv_rows(customer: str, number: int) -> Iterator[bytes]:
    yield COLUMNS
    for _ in range(number // 1000):
        yield f"{customer},tea,2,450,{'.' * 1000}\n".encode() * 1000


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
    snapshot. Beside it the same without a line of the code, to see it fail.
    """
    shops = {driver: service(driver) for driver in DRIVERS}
    orders = {driver: orders_of(driver, many=True) for driver in DRIVERS}
    # Another limit, of 60 s else; it holds for new sessions.
    orders["aiomysql"].execute("SET GLOBAL net_write_timeout = 5")
    everybody = threading.Barrier(len(DRIVERS))  # has a snapshot: then they write

    def start(driver: str, name: str, **variables: str) -> Any:
        folder = tmp_path / f"{driver} {name}"
        return serve(driver, shops[driver], orders[driver], folder, **variables)

    def get_all(driver: str) -> None:
        with start(driver, "whole") as serving:
            first_part(serving.running.client)  # so that all has been used once

            def pause() -> None:
                everybody.wait(timeout=60)
                write_on(serving, paid=MANY - [*DRIVERS].index(driver))

            with serving.little_memory():
                assert read(serving, pause) == list(range(1, MANY + 1))

    def be_cut_off(driver: str) -> None:
        line = "await allow_to_last(connection, seconds)"
        source = shops[driver].changed(tmp_path / driver, "db/bulk.py", line, "pass")
        # Not the usual 10 s: a busy machine is late to fill the buffers on the way.
        limits = {"DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS": "5"}
        with (
            start(driver, "limited", PYTHONPATH=source, **limits) as serving,
            serving.reader() as reader,
            reader.stream("GET", EXPORT) as answer,
        ):
            parts = answer.iter_raw()
            next(parts)
            time.sleep(PAUSE_SECONDS)
            with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                list(parts)

    def hoard(driver: str) -> None:
        line = "self.transport.pause_reading()"
        source = shops[driver].changed(tmp_path / driver, "db/connect.py", line, "pass")
        with start(driver, "unpaced", PYTHONPATH=source) as serving:
            # All of them may have come by the time that the first part leaves.
            before = serving.memory()
            with serving.reader() as reader, reader.stream("GET", EXPORT) as answer:
                # Kept: with it would go the connection, as of a reader that leaves.
                parts = answer.iter_raw()
                next(parts)
                # Seven other jobs want the processors: what takes 0.1 s may last long.
                wait_until(lambda: serving.memory() - before > LITTLE, seconds=60)

    with ThreadPoolExecutor(len(DRIVERS) + 3) as pool:
        jobs = [pool.submit(get_all, driver) for driver in DRIVERS]
        jobs += [pool.submit(be_cut_off, driver) for driver in ("psycopg", "aiomysql")]
        jobs += [pool.submit(hoard, "asyncmy")]
    for job in jobs:
        if not isinstance(job.exception(), threading.BrokenBarrierError):
            job.result()
    assert not everybody.broken


@pytest.mark.parametrize("driver", ["asyncpg", "aiomysql"])
def test_statement_of_an_export_may_take_longer(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    limits = {
        "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
        "DATABASE_STATEMENT_TIMEOUT_SECONDS": "1.2",
        "DATABASE_CLIENT_TIMEOUT_SECONDS": "1.5",
    }
    done = service(driver).program("slow_export", **limits, **database(driver))

    assert done.stdout == "1\n", done.stderr


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


@pytest.mark.parametrize("driver", DRIVERS)
def test_import_waits_for_its_sender_with_a_file_and_no_connection(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)
    client = shop.running.client
    client.post(IMPORT, content=csv_rows("warm", 1000)).raise_for_status()

    def rows() -> Iterator[bytes]:
        parts = csv_rows("eve", IMPORTED)
        for _ in range(IMPORTED // 2000):
            yield next(parts)
        wait_until(lambda: bool(shop.temporary_files()))
        wait_until(lambda: shop.in_use() == 0)
        yield from parts

    with shop.nothing_left(), shop.little_memory():
        answer = client.post(IMPORT, content=rows(), timeout=60)

    assert answer.json() == {"imported": IMPORTED}
    assert shop.orders.count("eve") == (IMPORTED, IMPORTED)
    shop.orders.execute("DELETE FROM order_lines")
    shop.orders.execute("DELETE FROM orders WHERE customer IN ('eve', 'warm')")


@pytest.mark.parametrize("driver", DRIVERS)
def test_sender_that_leaves_leaves_nothing(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)

    def rows() -> Iterator[bytes]:
        yield from csv_rows("mallory", 2000)
        wait_until(lambda: bool(shop.temporary_files()))
        raise ZeroDivisionError

    with shop.nothing_left():
        with pytest.raises(ZeroDivisionError):
            shop.running.client.post(IMPORT, content=rows())
        wait_until(lambda: f"POST {IMPORT} 499" in shop.running.log.read_text())

    assert shop.orders.count("mallory") == (0, 0)


def test_import_of_a_single_endless_line_takes_little_memory(
    serving: Callable[[str], Serving],
) -> None:
    shop = serving("aiosqlite")

    def line() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * MEGABYTE

    with shop.nothing_left(), shop.little_memory():
        answer = shop.running.client.post(IMPORT, content=line(), timeout=60)

    assert answer.status_code == 422


@pytest.mark.parametrize("driver", DRIVERS)
def test_readers_that_leave_leave_nothing(
    serving: Callable[[str], Serving], driver: str
) -> None:
    shop = serving(driver)

    def leave(_: int) -> None:
        with shop.reader() as reader:
            first_part(reader)

    with shop.nothing_left(), ThreadPoolExecutor(10) as readers:
        list(readers.map(leave, range(50)))

    if shop.orders.server:
        # Those that wait in the pool; an export takes its connection along.
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

    with shop.nothing_left():
        shop.running.client.get("/orders").raise_for_status()


def test_readers_that_stop_reading_hold_a_quarter_of_the_pool_for_a_time(
    service: Callable[[str], Service],
    orders_of: Callable[..., Orders],
    tmp_path: Path,
) -> None:
    limits = {
        "DATABASE_POOL_SIZE": "8",
        "DATABASE_EXPORT_TIMEOUT_SECONDS": "8",
        "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "3",
    }

    def stop_reading(driver: str) -> None:
        shop, orders = service(driver), orders_of(driver)
        with (
            serve(driver, shop, orders, tmp_path / driver, **limits) as serving,
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
            wait_until(lambda: serving.in_use() == 0)
            took = time.monotonic() - began
            first_part(reader)

            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert refused.json()["type"] == "urn:problem:busy"
            assert other.status_code == 200
            assert other.elapsed.total_seconds() < 3
            assert 3 < took < 15
            for parts in stuck:
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete"):
                    list(parts)

    for driver in DRIVERS:
        orders_of(driver)
    with ThreadPoolExecutor(len(DRIVERS)) as pool:
        list(pool.map(stop_reading, DRIVERS))
