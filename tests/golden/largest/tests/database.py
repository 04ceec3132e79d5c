"""A database for `make dev` and the tests.

`python tests/database.py [--keep] COMMAND...` runs the command on the database that the
environment names, else with DATABASE_URL set to a server that lives as long as the
command. With --keep its data are there again the next time.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from uuid import uuid4

from database_server import (
    DROP,
    HELP,
    IN_COMPOSE,
    PACKAGE,
    PORT,
    find_binaries,
    started,
)
from database_server import EMPTY as EMPTY
from database_server import KEYS_OFF as KEYS_OFF
from database_server import KEYS_ON as KEYS_ON
from database_server import SLOW as SLOW
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

UNREACHABLE = {"database_port": 1}  # no server listens there
# The log has what a test provokes, and nothing else.
QUIET = {"DATABASE_BUDGET_CHECK": "off", "LOG_LEVEL": "WARNING"}

PROJECT = Path(__file__).parents[1]
COMPOSE = ["docker", "compose", "up", "--detach", "--wait", "database"]


@contextmanager
def server(data: Path) -> Iterator[str]:
    """Yield the URL of a server, our own one with its data in the folder `data`."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    elif binaries := find_binaries():
        with started(binaries, data) as url:
            yield url
    elif shutil.which("docker"):
        if subprocess.run(COMPOSE, cwd=PROJECT).returncode:
            raise RuntimeError(HELP)
        command = ["docker", "compose", "port", "database", str(PORT)]
        address = subprocess.check_output(command, cwd=PROJECT, text=True).strip()
        yield IN_COMPOSE.format(address)
    else:
        raise RuntimeError(HELP)


@contextmanager
def scratch_database(connect: Callable[[str], AsyncEngine]) -> Iterator[str]:
    """Yield the URL of an empty database for the tests, and drop it afterwards."""
    name = f"test_{uuid4().hex}"

    async def execute(url: str, statement: str) -> None:
        engine = connect(url)
        async with engine.connect() as connection:
            await connection.exec_driver_sql(statement)
        await engine.dispose()

    with TemporaryDirectory() as folder, server(Path(folder)) as url:
        asyncio.run(execute(url, f"CREATE DATABASE {name}"))
        try:
            scratch = make_url(url).set(database=name)
            yield scratch.render_as_string(hide_password=False)
        finally:
            asyncio.run(execute(url, DROP.format(name)))


def exit_on_signals() -> None:
    """Let SIGTERM and SIGHUP end what is open here, such as a server."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))


def run(command: list[str]) -> int:
    """Run the command to its end; it has this environment."""
    with subprocess.Popen(command) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                pass  # the command has it too, and ends first
            except SystemExit:
                process.terminate()  # the signal may have reached this process alone
                raise


def main() -> int:
    keep, command = sys.argv[1] == "--keep", sys.argv[1:]
    if keep:
        command = command[1:]
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_HOST"):
        os.execvp(command[0], command)  # noqa: S606 (signals reach it)
    if PACKAGE and not find_binaries() and os.geteuid() != 0:
        again = ["uv", "run", "--group=servers", "python", *sys.argv]
        os.execvp(again[0], again)  # noqa: S606 (signals reach it)
    exit_on_signals()
    with TemporaryDirectory() as temporary:
        kept = Path(gettempdir()) / f"{PROJECT.name}-database-{os.getuid()}"
        with server(kept if keep else Path(temporary)) as url:
            os.environ["DATABASE_URL"] = url
            return run(command)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(str(error))
