"""Python of a service that has imported its libraries: a program starts by a fork.

Most of a short program's time is the import of its libraries.
"""

import atexit
import json
import os
import signal
import subprocess
import threading
from collections import Counter, OrderedDict
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.rendering import ROOT

PROGRAM = ROOT / "tests" / "programs" / "preloaded.py"
# Of the services that were used last: each takes some 80 MB.
MOST = 6


class Interpreter:
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        # The modules of one program are not those of the next one.
        own = {k: v for k, v in environment.items() if k != "PYTHONPATH"}
        self.process = subprocess.Popen(
            ["python", PROGRAM],
            cwd=folder,
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, argv: list[str], environment: dict[str, str], seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """As `subprocess.run`, without an input."""
        with TemporaryDirectory() as folder:
            stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
            outputs = {"stdout": str(stdout), "stderr": str(stderr)}
            command = {"argv": argv, "environment": environment, **outputs}
            assert self.process.stdin
            print(json.dumps(command), file=self.process.stdin, flush=True)
            pid = self._read()
            is_late = threading.Event()

            def end() -> None:
                is_late.set()
                os.kill(pid, signal.SIGKILL)

            limit = threading.Timer(seconds, end)
            limit.start()
            try:
                code = self._read()
            finally:
                limit.cancel()
            texts = [path.read_text() for path in (stdout, stderr)]
        if is_late.is_set():
            raise subprocess.TimeoutExpired(argv, seconds, *texts)
        return subprocess.CompletedProcess(["python", *argv], code, *texts)

    def close(self) -> None:
        self.process.communicate()

    def _read(self) -> int:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the interpreter has ended"
        return int(line)


_used: Counter[Path] = Counter()
_open: OrderedDict[Path, Interpreter] = OrderedDict()
_lock = threading.Lock()


def run(
    folder: Path, argv: list[str], environment: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str] | None:
    """None where it is not worth it, or another thread has the interpreter."""
    _used[folder] += 1
    if _used[folder] == 1 or not _lock.acquire(blocking=False):
        return None
    try:
        if folder not in _open:
            _open[folder] = Interpreter(folder, environment)
        _open.move_to_end(folder)
        done = _open[folder].run(argv, environment, seconds)
        if len(_open) > MOST:
            _open.popitem(last=False)[1].close()
    finally:
        _lock.release()
    return done


@atexit.register
def _close() -> None:
    for interpreter in _open.values():
        interpreter.close()
