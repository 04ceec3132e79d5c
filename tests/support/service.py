"""A rendered service as its owner has it: its commands, its processes, its HTTP."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from tests.support import preloaded
from tests.support.processes import Process, children
from tests.support.rendering import ROOT, Answers, environment, load_answers

PROGRAMS = ROOT / "tests" / "programs"
COMMAND_SECONDS = 900
# The longest waits that fit together: on a busy machine a connect takes over 2 s.
PATIENT = {
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "4.5",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "5.5",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "3",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "3.5",
}
# For clients of HTTP, which would read all authorities of the system: that takes 20 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
PLACES: list[socket.socket] = []
ORDER = {
    "customer": "ada",
    "lines": [{"sku": "tea", "quantity": 2, "price_cents": 450}],
}


@dataclass(frozen=True)
class Program:
    """A process of the service, and what it says."""

    process: subprocess.Popen[str] | preloaded.Process
    log: Path

    def wait_for_log(self, text: str, times: int = 1) -> None:
        def is_there() -> bool:
            has_ended = self.process.poll() is not None
            log = self.log.read_text()
            assert not has_ended or log.count(text) >= times, log
            return log.count(text) >= times

        wait_until(is_there, seconds=120)

    def stop(self, seconds: float = 30) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)


@dataclass(frozen=True)
class Running(Program):
    client: httpx.Client
    # That of /metrics, where the service has it.
    metrics_url: str


@dataclass(frozen=True)
class Service:
    folder: Path

    @property
    def package(self) -> str:
        return str(load_answers(self.folder)["package_name"])

    def command(
        self, *command: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the service's own environment, in its folder."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def program(
        self, name: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of tests/programs in the service's environment."""
        return self.python(str(PROGRAMS / f"{name}.py"), *arguments, **variables)

    def python(
        self, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`command("python", ...)` by a fork of an interpreter that has imported the
        libraries.
        """
        command = ["python", *arguments]
        if not preloaded.is_possible(variables):
            return self.command(*command, **variables)
        with TemporaryDirectory() as folder:
            outputs = Path(folder, "stdout"), Path(folder, "stderr")
            process = preloaded.start(
                self.folder, arguments, self._environment(**variables), *outputs
            )
            try:
                code = process.wait(COMMAND_SECONDS)
            except subprocess.TimeoutExpired as late:
                said = [path.read_bytes() for path in outputs]
                raise subprocess.TimeoutExpired(command, late.timeout, *said) from None
            finally:
                process.kill()
            texts = [path.read_text() for path in outputs]
            return subprocess.CompletedProcess(command, code, *texts)

    def make(self, target: str, **variables: str) -> str:
        done = self.command("make", target, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def migrate(self, **variables: str) -> None:
        """`make migrate` by a fork."""
        alembic = self.folder / ".venv" / "bin" / "alembic"
        done = self.python(str(alembic), "upgrade", "head", **variables)
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self) -> None:
        """Make its environment: exactly what it names, whatever is there."""
        done = self.command("uv", "sync", "--quiet")
        assert done.returncode == 0, done.stderr

    def changed(self, folder: Path, file: str, code: str, instead: str) -> str:
        """A copy of the source with other code in one place; ahead on PYTHONPATH."""
        # Python would take what was compiled for what is there, if both are of one size
        # and of one second.
        name = f"{Path(file).stem}.*.pyc"
        # And what another process is just about to write.
        compiled = shutil.ignore_patterns(name, "*.pyc.*")
        shutil.copytree(self.folder / "src", folder, ignore=compiled)
        path = folder / self.package / file
        text = path.read_text()
        assert text.count(code) == 1, f"{code} in {file}"
        path.write_text(text.replace(code, instead))
        return str(folder)

    @contextmanager
    def running(
        self,
        *arguments: str,
        ready: str = "/readyz",
        command: Sequence[str] = (),
        **variables: str,
    ) -> Iterator[Running]:
        """Start it on a free port of the loopback: as its platform does with
        `command=shop.start_command`, else by a fork where that is possible.
        """
        port = int(variables.get("PORT") or free_port())
        log = self.folder / f"service-{port}.log"
        # One port for both: a test has one client.
        ports = {"PORT": str(port), "METRICS_PORT": str(port)}
        address = {"HOST": "127.0.0.1", **ports, **variables}
        process = (
            self._popen([*command, *arguments], log, **address)
            if command
            else self._fork([*self.start_command, *arguments], log, **address)
        )
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=30, verify=NO_TLS
        ) as client:
            metrics_url = f"http://127.0.0.1:{address['METRICS_PORT']}/metrics"
            running = Running(process, log, client, metrics_url)
            try:
                if ready:
                    wait_for(running, ready)
                yield running
            finally:
                process.terminate()
                process.wait(timeout=60)

    @contextmanager
    def working(
        self, *options: str, command: str = "worker", **variables: str
    ) -> Iterator[Program]:
        """Start a worker of it, or its clock: `beat`."""
        ready = "ready." if command == "worker" else "beat: Starting"
        started = ["python", "-m", f"{self.package}.worker", command, *options]
        variables = {"CELERY_METRICS_PORT": "0"} | variables
        with self.program_until_stopped(started, ready, **variables) as worker:
            yield worker

    @contextmanager
    def program_until_stopped(
        self, command: Sequence[str], ready: str, **variables: str
    ) -> Iterator[Program]:
        """Start a program that serves no HTTP; its log says when it is ready."""
        log = self.folder / f"program-{free_port()}.log"
        process = self._fork(command, log, **variables)
        program = Program(process, log)
        try:
            program.wait_for_log(ready)
            yield program
        finally:
            if process.poll() is None:  # a test that wants a polite end calls stop()
                with suppress(ProcessLookupError, FileNotFoundError):
                    Process(process.pid).freeze()  # so that it starts no more children
                    for child in children(process.pid):
                        os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()

    @property
    def start_command(self) -> list[str]:
        """That of its platform."""
        if (self.folder / "deploy" / "run.sh").exists():
            return ["deploy/run.sh"]
        if (self.folder / "gunicorn.conf.py").exists():
            return ["gunicorn"]
        return ["python", "-m", self.package]

    def _popen(
        self, command: Sequence[str], log: Path, **variables: str
    ) -> subprocess.Popen[str]:
        with log.open("w") as output:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                text=True,
            )

    def _fork(
        self, command: Sequence[str], log: Path, **variables: str
    ) -> subprocess.Popen[str] | preloaded.Process:
        """By a fork, if the command is a program of Python and one is possible."""
        name, *arguments = command
        script = self.folder / ".venv" / "bin" / name
        is_python = name in ("python", "gunicorn")
        if not is_python or not preloaded.is_possible(variables):
            return self._popen(command, log, **variables)
        argv = arguments if name == "python" else [str(script), *arguments]
        return preloaded.start(
            self.folder, argv, self._environment(**variables), log, log
        )

    def _environment(self, **variables: str) -> dict[str, str]:
        inherited = environment(**variables)
        path = f"{self.folder / '.venv' / 'bin'}:{inherited['PATH']}"
        return inherited | {"PATH": path}


def level(line: str) -> str:
    """That of a line of the log, on any cloud."""
    fields = json.loads(line)
    return str(fields.get("level") or fields["severity"])


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(running: Running, path: str, seconds: float = 180) -> None:
    """Ask until the answer is 200, for as long as the process lives."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert running.process.poll() is None, running.log.read_text()
        try:
            if running.client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.02)
    raise AssertionError(
        f"{path} is not 200 after {seconds} s\n{running.log.read_text()}"
    )


def free_port() -> int:
    """A port that no other process gets, though its service is slow to take it."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    PLACES.append(place)  # bound and never listening
    port: int = place.getsockname()[1]
    return port


def copy(template: Path, folder: Path, answers: Answers) -> Service:
    """Copy by the command that the README shows."""
    data = [f"--data={key}={value}" for key, value in answers.items()]
    command = [sys.executable, "-m", "copier", "copy", "--quiet", "--defaults", *data]
    subprocess.run([*command, template, folder], check=True, stdin=subprocess.DEVNULL)
    return Service(folder)


def conversation(client: httpx.Client) -> list[Any]:
    """What a user of the example does and tries; answers without what is random."""
    key = {"Idempotency-Key": "canary"}
    created = client.post("/orders", json=ORDER, headers=key)
    order = f"/orders/{created.json()['id']}"
    nobody = "/orders/00000000-0000-0000-0000-000000000000"
    answers = [
        created,
        client.post("/orders", json=ORDER, headers=key),
        client.get(order),
        client.get("/orders", params={"customer": "ada"}),
        client.post(f"{order}/pay"),
        client.post(f"{order}/pay"),
        client.get("/orders", params={"status": "paid"}),
        client.get(nobody),
        client.post(f"{nobody}/pay"),
        client.get("/orders/none"),
        client.get("/orders", params={"cursor": "none"}),
        client.post("/orders", json=ORDER | {"lines": []}),
        client.post("/orders", content=b"{", headers={"content-type": "text/plain"}),
        client.post("/orders", content=b" " * 2_000_000),
        client.get("/nowhere"),
        client.put("/orders"),
    ]
    return [[answer.status_code, masked(answer)] for answer in answers]


def masked(answer: httpx.Response) -> Any:
    def mask(value: Any) -> Any:
        if isinstance(value, dict):
            hidden = {"id", "created_at", "updated_at", "request_id", "title"}
            return {k: "*" if k in hidden else mask(v) for k, v in value.items()}
        return [mask(item) for item in value] if isinstance(value, list) else value

    return mask(answer.json()) if answer.content else None
