"""The MariaDB or MySQL that database.py starts, from binaries on this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PORT = 3306
IN_COMPOSE = "mysql://root:app@{}/app"
SLOW = "SELECT SLEEP(1)"
DROP = "DROP DATABASE {}"
# To empty a table, whatever keys lead to it.
EMPTY = "DELETE FROM {}"
KEYS_OFF, KEYS_ON = ["SET foreign_key_checks=0"], ["SET foreign_key_checks=1"]
PACKAGE = None  # none brings the binaries
HELP = (
    "There is no MariaDB or MySQL here: set DATABASE_URL, or install one"
    " (Debian: apt-get install mariadb-server; macOS: brew install mysql)."
)

# Debian, Fedora and Oracle keep the server out of PATH.
FOLDERS = ("/usr/sbin", "/usr/libexec", "/usr/local/mysql/bin")
OPTIONS = (
    "--bind-address=127.0.0.1",
    "--socket=",  # none: its path may have 107 characters at most
    "--loose-mysqlx=OFF",  # a second port of MySQL's
    "--secure-file-priv=",  # a folder of MySQL's that only its own user may enter
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_bin",
    # Fast rather than safe from a power failure: MariaDB, then both.
    "--loose-debug-no-sync",
    "--innodb-doublewrite=OFF",
    "--innodb-flush-log-at-trx-commit=0",
    "--performance-schema=OFF",
    "--skip-log-bin",
)


@contextmanager
def started(program: Path, data: Path, *options: str) -> Iterator[str]:
    """Run a server with its data in `data`; `options` are as in my.cnf."""
    # The server refuses to run as root: become the user of its package.
    user = "mysql" if os.geteuid() == 0 else None
    data.mkdir(exist_ok=True)
    _give(data, user)
    if running := _port_of(data):
        yield f"mysql://root@127.0.0.1:{running}/app"
        return

    files, log = data / "files", data / "log"
    if not files.exists():
        _install(program, data / "new", user)
        (data / "new").rename(files)
    start = data / "start.sql"
    start.write_text("CREATE DATABASE IF NOT EXISTS app;\n")
    _give(start, user)
    place = socket.socket()  # bound to the end: no other process gets the port
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    port = place.getsockname()[1]
    with log.open("w") as output:
        process = subprocess.Popen(
            [
                program,
                "--no-defaults",
                f"--datadir={files}",
                f"--tmpdir={data}",
                f"--init-file={start}",
                f"--port={port}",
                *OPTIONS,
                *(f"--{option}" for option in options),
            ],
            user=user,
            cwd=data,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Else Ctrl-C at the terminal would reach it before those who use it.
            start_new_session=True,
        )
    try:
        if not _answers(process, port):
            raise RuntimeError(f"{program.name} does not start:\n{log.read_text()}")
        (data / "running").write_text(f"{process.pid} {port}")
        yield f"mysql://root@127.0.0.1:{port}/app"
    finally:
        (data / "running").unlink(missing_ok=True)
        process.terminate()
        process.wait()
        place.close()


def _give(path: Path, user: str | None) -> None:
    if user:
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)


def _install(program: Path, files: Path, user: str | None) -> None:
    """Write what an empty server has, with a `root` who needs no password."""
    shutil.rmtree(files, ignore_errors=True)  # half of it, of one that was killed
    if program.name == "mariadbd":
        command = [
            "mariadb-install-db",
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--force",  # do not ask the DNS for the name of this machine
            "--skip-test-db",  # nor anonymous users, who are preferred to app@'%'
        ]
    else:
        command = [str(program), "--no-defaults", "--initialize-insecure"]
    done = subprocess.run(
        # In /tmp a server that starts removes the temporary tables of all others.
        [*command, *OPTIONS, f"--datadir={files}", f"--tmpdir={files.parent}"],
        user=user,
        cwd=files.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stdout}")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server greets whoever connects, or ends."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=10) as connection,
        ):
            return bool(connection.recv(1))
        time.sleep(0.02)
    return False


def _port_of(data: Path) -> int | None:
    """Find the port of a server that already runs on these data."""
    with suppress(OSError):
        pid, port = (data / "running").read_text().split()
        os.kill(int(pid), 0)
        return int(port)
    return None


def find_binaries() -> Path | None:
    """The first of PATH, MariaDB or MySQL."""
    for folder in (*os.environ.get("PATH", os.defpath).split(os.pathsep), *FOLDERS):
        for name in ("mariadbd", "mysqld"):
            if found := shutil.which(name, path=folder):
                return Path(found)
    return None
