"""Instances of a service behind a proxy with TLS, and clients that count losses."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

import httpx

from tests.support.edge import Balancer
from tests.support.manifests import Container
from tests.support.service import (
    NO_TLS,
    ORDER,
    Program,
    Running,
    Service,
    free_port,
    wait_until,
)

NEW = ORDER | {"customer": "canary-customer"}


@dataclass(frozen=True)
class Deployed:
    """A service as it is deployed: its image, and what its platform gives to it."""

    service: Service
    container: Container
    # What is different on this machine.
    changes: dict[str, str] = field(default_factory=dict)

    @property
    def variables(self) -> dict[str, str]:
        return self.container.variables | self.changes

    @contextmanager
    def instance(self, edge: Balancer) -> Iterator[Running]:
        """Start one more, which gets requests as soon as it is ready."""
        port = edge.place()
        ports = {"PORT": str(port), "METRICS_PORT": str(free_port())}
        with self.service.running(
            command=self.container.command,
            ready=self.container.ready,
            **self.variables | ports,
        ) as running:
            edge.admit(port)
            yield running

    def program(self, ready: str) -> AbstractContextManager[Program]:
        """Start what serves no HTTP."""
        return self.service.program_until_stopped(
            self.container.command, ready, **self.variables
        )


class Fleet:
    """The one instance of a deployment, and for a while its successor.

    The database has `rows` orders at the least, so that an export takes a while.
    """

    def __init__(
        self, deployed: Deployed, edge: Balancer, stack: ExitStack, rows: int = 0
    ) -> None:
        self.deployed, self.edge, self.rows = deployed, edge, rows
        self._stack = stack
        self._running = self._start()

    def roll(self, load: "Load", *, is_announced: bool = True) -> None:
        """Start the next one, and end this one while it has requests in progress."""
        old = self._running
        port = old.client.base_url.port or 0
        with (
            SlowUpload(self.edge) as upload,
            self.edge.client() as client,
            client.stream("GET", "/orders/export") as export,
        ):
            lines = export.iter_lines()
            assert next(lines).startswith("id,")
            load.wait_for_answers()  # later than the upload, which has arrived by then
            self._running = self._start()
            if is_announced:
                self.edge.drain(port)
            load.wait_for_answers()
            old.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_listening(port))
            # At once: the old instance waits for both, and for not too long.
            assert upload.finish() == '201 {"imported":1}'
            assert sum(1 for _ in lines) >= self.rows
            load.wait_for_answers()
            self.edge.drain(port)
        self._await_end(old)

    def stop(self) -> None:
        self._assert_discreet()
        self._running.process.send_signal(signal.SIGTERM)
        self._await_end(self._running)

    def _start(self) -> Running:
        return self._stack.enter_context(self.deployed.instance(self.edge))

    def _assert_discreet(self) -> None:
        """No metric and no API document has a value of a customer or a password."""
        running, shop = self._running, self.deployed.service
        answers = [running.client.get("/openapi.json")]
        if (shop.folder / "src" / shop.package / "web" / "metrics.py").exists():
            metrics = httpx.get(running.metrics_url, verify=NO_TLS).raise_for_status()
            assert "http_request_duration_seconds_count{" in metrics.text
            answers.append(metrics)
        for answer in answers:
            assert "canary" not in f"{answer.headers} {answer.text}"

    def _await_end(self, running: Running) -> None:
        assert running.process.wait(timeout=self.deployed.container.grace) == 0
        assert_silent(running)


def assert_silent(program: Program) -> None:
    """No traceback is in the log, and no value of a customer (`canary`)."""
    log = program.log.read_text()
    assert "Traceback" not in log
    assert "canary" not in log


class Load:
    """Clients that create and read orders; each answer that is none is kept."""

    def __init__(self, edge: Balancer, clients: int = 2) -> None:
        self._edge, self._ended = edge, threading.Event()
        self._threads = [threading.Thread(target=self._use) for _ in range(clients)]
        self.answered, self.lost = 0, list[str]()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_answers(self, number: int = 20) -> None:
        """Wait for as many more, true or lost."""
        last = self.answered + number
        wait_until(lambda: self.answered >= last, seconds=60)

    def _use(self) -> None:
        with self._edge.client() as client:
            # A pause, so that the processors have time for what starts.
            while not self._ended.wait(0.01):
                try:
                    created = client.post("/orders", json=NEW)
                    created.raise_for_status()
                    client.get(f"/orders/{created.json()['id']}").raise_for_status()
                except httpx.HTTPError as error:
                    self.lost.append(repr(error))
                self.answered += 2


class SlowUpload:
    """An import of one order, whose body ends at `finish()`."""

    def __init__(self, edge: Balancer) -> None:
        self._edge, self._goes_on = edge, threading.Event()
        self._thread = threading.Thread(target=self._send)
        self.begun = threading.Event()
        self.outcome = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self.begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> str:
        self._goes_on.set()
        self._thread.join()
        return self.outcome

    def _body(self) -> Iterator[bytes]:
        yield b'[{"customer": "slow", '
        self.begun.set()
        self._goes_on.wait(60)
        yield b'"lines": [{"sku": "tea", "quantity": 1, "price_cents": 1}]}]'

    def _send(self) -> None:
        headers = {"content-type": "application/json"}
        with self._edge.client() as client:
            try:
                answer = client.post(
                    "/orders/import", content=self._body(), headers=headers
                )
                self.outcome = f"{answer.status_code} {answer.text}"
            except httpx.HTTPError as error:
                self.outcome = repr(error)


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
