"""Python that has imported the libraries of a service: a program starts by a fork.

Most of a short program's time is the import of its libraries, which is the same in
every service.
"""

import atexit
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.rendering import ROOT, environment

PROGRAM = ROOT / "tests" / "programs" / "preloaded.py"


class Process:
    """A program that runs in a fork, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = threading.Event()

    def ended(self, code: int) -> None:
        self.returncode = code
        self._ended.set()

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Interpreter:
    def __init__(self, python: Path) -> None:
        # A test may have put modules of its own ahead of those of the service: they
        # would be those of each later program.
        own = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, PROGRAM],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for pytest, which ends the programs
        )
        self._lock = threading.Lock()
        self._started: queue.SimpleQueue[Process | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, **command: object) -> Process:
        assert self._process.stdin
        with self._lock:
            print(json.dumps(command), file=self._process.stdin, flush=True)
            process = self._started.get()
        assert process, "the interpreter has ended"
        return process

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout
        running: dict[int, Process] = {}
        with self._process.stdout as answers:
            for line in answers:
                kind, pid, *code = line.split()
                if kind == "start":
                    running[int(pid)] = process = Process(int(pid))
                    self._started.put(process)
                else:
                    running.pop(int(pid)).ended(int(*code))
        # Nothing else would end them, and a test would wait for that for ever.
        for process in running.values():
            process.kill()
            process.ended(-signal.SIGKILL)
        self._started.put(None)


# That of the service which was used first: what it imports is the same in the others.
_interpreter: list[Interpreter] = []
# Variables that are read when Python starts, or when a library is imported.
AT_IMPORT = ("PYTHON", "OTEL_PROPAGATORS", "OTEL_PYTHON_CONTEXT")


def is_possible(variables: Iterable[str]) -> bool:
    """Whether none of these variables was read before the fork."""
    return not any(
        each.startswith(AT_IMPORT) and each != "PYTHONPATH" for each in variables
    )


def start(
    folder: Path,
    argv: Sequence[str],
    environment: dict[str, str],
    stdout: Path,
    stderr: Path,
) -> Process:
    """Run `python` of the service in that folder; its outputs go to two files, or to
    one.
    """
    if not _interpreter:
        _interpreter.append(Interpreter(folder / ".venv" / "bin" / "python"))
        atexit.register(_interpreter[0].close)
    for path in (stdout, stderr):
        path.write_bytes(b"")
    return _interpreter[0].start(
        argv=[str(each) for each in argv],
        environment=environment,
        folder=str(folder),
        stdout=str(stdout),
        stderr=str(stderr),
    )
