"""Servers for the tests: on free ports of the loopback, ended when the tests end."""

import asyncio
import csv
import importlib.util
import io
import os
import pwd
import shutil
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import asyncpg
import pymysql
import trustme
import yaml
from sqlalchemy import make_url

from tests.support.processes import Daemon
from tests.support.rendering import ROOT
from tests.support.service import free_port

DRIVERS: dict[str, dict[str, str]] = yaml.safe_load(
    (ROOT / "hooks" / "drivers.yml").read_text()
)["drivers"]["default"]
# Those that speak to a server.
NETWORKED = tuple(name for name, row in DRIVERS.items() if row["dialect"] != "sqlite")
PRODUCTS = {"mysql": "MariaDB", "postgresql": "PostgreSQL"}
# The servers of each dialect, as SERVERS names them; the first is that of most tests.
SERVERS_OF = {
    "mysql": ("mariadb", "mysql"),
    "postgresql": ("postgresql",),
    "sqlite": (),
}
# Each driver with each server that it speaks to: ("asyncmy", "mysql") and so on.
DRIVERS_ON = tuple(
    (name, server)
    for name, row in DRIVERS.items()
    for server in SERVERS_OF[row["dialect"]]
)
# Each driver once, and each server: for a test whose subject is the server.
NETWORKED_ON = (
    ("asyncpg", "postgresql"),
    ("psycopg", "postgresql"),
    ("aiomysql", "mariadb"),
    ("asyncmy", "mysql"),
)


def usual_server(driver: str) -> str:
    """The name of the server that a driver is tested on, unless a test says more."""
    return SERVERS_OF[DRIVERS[driver]["dialect"]][0]


def load(dialect: str) -> ModuleType:
    path = ROOT / "variants" / "tests_database_server" / f"{dialect}.py"
    spec = importlib.util.spec_from_file_location(dialect, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What starts a server in a rendered service starts ours as well.
launchers = {dialect: load(dialect) for dialect in PRODUCTS}
launcher = launchers["postgresql"]


def binaries(dialect: str = "postgresql") -> Path:
    found: Path | None = launchers[dialect].find_binaries()
    if not found:
        raise RuntimeError(
            f"{PRODUCTS[dialect]} is missing: `make servers` installs it."
        )
    return found


@dataclass(frozen=True)
class Server(ABC):
    """A server with TLS, whose certificate is for `localhost` alone."""

    url: str
    ca: Path

    @abstractmethod
    def execute(self, statement: str) -> list[Any]:
        """Run it as the administrator, and return the rows, each with its names."""

    @abstractmethod
    def empty(self, name: str) -> None:
        """Make an empty database, in place of the one that has the name."""

    @abstractmethod
    def sessions(self, database: str) -> list[bool]:
        """Tell of each session in a database whether it is encrypted."""

    @property
    def verified(self) -> str:
        """The URL that asks for encryption and for the right certificate."""
        url = self.url.replace("127.0.0.1", "localhost")
        return f"{url}?sslmode=verify-full&sslrootcert={self.ca}"

    def database(self, name: str) -> str:
        """The verified URL of an empty database."""
        self.empty(name)
        return self.verified_of(name)

    @property
    def socket(self) -> Path:
        """What a client on this machine connects to: PostgreSQL's is a folder."""
        return self.ca.parent / "data"

    def on(self, database: str) -> Self:
        """The same server, for statements in another database."""
        url = make_url(self.url).set(database=database)
        return replace(self, url=url.render_as_string(hide_password=False))

    def verified_of(self, database: str) -> str:
        url = make_url(self.verified).set(database=database)
        return url.render_as_string(hide_password=False)


class PostgreSQL(Server):
    def execute(self, statement: str) -> list[Any]:
        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.url)
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def empty(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        self.execute(f'CREATE DATABASE "{name}"')

    def sessions(self, database: str) -> list[bool]:
        rows = self.execute(
            "SELECT ssl FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)"  # noqa: S608
            f" WHERE datname = '{database}'"
        )
        return [row["ssl"] for row in rows]


class MariaDB(Server):
    """MariaDB, or MySQL, which is asked the same."""

    @property
    def socket(self) -> Path:
        return super().socket / "mysqld.sock"

    def execute(self, statement: str) -> list[Any]:
        url = make_url(self.url)
        with (
            pymysql.connect(
                host=url.host,
                port=url.port,
                user="root",
                database=url.database,
                autocommit=True,
                cursorclass=pymysql.cursors.DictCursor,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return list(cursor.fetchall())

    def empty(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS `{name}`")
        self.execute(f"CREATE DATABASE `{name}`")

    def sessions(self, database: str) -> list[bool]:
        rows = self.execute(
            "SELECT connection_type AS type FROM performance_schema.threads"  # noqa: S608
            f" WHERE processlist_db = '{database}'"
        )
        return [row["type"] == "SSL/TLS" for row in rows]


# A guest, the bearer of a token, and the roles of a service are asked for a password.
ACCESS = """\
local all all trust
host all guest,bearer,shop_owner,shop,shop_reader all scram-sha-256
host all all all trust
"""


@contextmanager
def postgresql(folder: Path) -> Iterator[Server]:
    """Start one as the rendered service does, but with TLS and many connections."""
    certify(folder, "postgres")
    access = folder / "pg_hba.conf"
    access.write_text(ACCESS)
    options = (
        f"hba_file={access}",
        "ssl=on",
        f"ssl_cert_file={folder}/server.pem",
        f"ssl_key_file={folder}/server.key",
        f"unix_socket_directories={folder}/data",
        "max_connections=300",
        "jit=off",  # it compiles queries of the catalogue, on tables of ten rows
    )
    with launcher.started(binaries(), folder / "data", *options) as url:
        yield PostgreSQL(url, folder / "ca.pem")


@contextmanager
def mariadb(folder: Path, program: Path | None = None) -> Iterator[Server]:
    """Start one as the rendered service does, but with TLS and many connections."""
    certify(folder, "mysql")
    options = (
        f"ssl-cert={folder}/server.pem",
        f"ssl-key={folder}/server.key",
        f"socket={folder}/data/mysqld.sock",
        "max-connections=300",
        "performance-schema=ON",  # knows which sessions are encrypted
    )
    started = launchers["mysql"].started
    program = program or binaries("mysql")
    with started(program, folder / "data", *options) as url:
        yield MariaDB(url, folder / "ca.pem")


@contextmanager
def mysql(folder: Path) -> Iterator[Server]:
    """As MariaDB, for a test of both."""
    with mariadb(folder, mysql_program(folder)) as server:
        yield server


def mysql_program(folder: Path) -> Path:
    """The `mysqld` of MySQL itself, where the user of the server may enter as well.

    A clone in the home of root is closed to that user.
    """
    home = ROOT / ".servers" / "mysql"
    if not home.exists():
        raise RuntimeError("MySQL is missing: run `make servers`.")
    folder.chmod(0o755)
    shutil.copytree(home, folder / "mysql", symlinks=True, copy_function=link_or_copy)
    return Path(shutil.copy(ROOT / "tests" / "support" / "mysqld", folder))


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system
        shutil.copy2(source, target)


# The release of Debian that brings it; only the newer one keeps prepared statements.
PGBOUNCERS = {"1.18": "bookworm", "1.24": "trixie"}


@dataclass(frozen=True)
class PgBouncer:
    """In front of a PostgreSQL, all of whose databases and users it lets through."""

    url: str
    ca: Path
    process: subprocess.Popen[bytes]

    def through(self, url: str) -> str:
        """The URL of the same database, by way of the pooler."""
        own = make_url(self.url)
        return (
            make_url(url)
            .set(host=own.host, port=own.port, query={})
            .render_as_string(hide_password=False)
        )

    @property
    def verified(self) -> str:
        url = self.url.replace("127.0.0.1", "localhost")
        return f"{url}?sslmode=verify-full&sslrootcert={self.ca}"

    def ask(self, command: str) -> list[dict[str, str]]:
        """What the console answers: `SHOW POOLS`, `RECONNECT shop`."""
        url = make_url(self.url).set(database="pgbouncer")
        done = subprocess.run(
            [
                *(binaries() / "psql", "--no-psqlrc", "--csv", f"--command={command}"),
                url.render_as_string(hide_password=False),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
        return list(csv.DictReader(io.StringIO(done.stdout)))


@contextmanager
def pgbouncer(
    folder: Path,
    server: Server,
    generation: str,
    *,
    pool_mode: str = "transaction",
    **options: str | int,
) -> Iterator[PgBouncer]:
    """Start one for a server, with `options` for its section [pgbouncer]."""
    home = ROOT / ".servers" / PGBOUNCERS[generation]
    if not home.exists():
        raise RuntimeError(f"PgBouncer {generation} is missing: run `make servers`.")
    certify(folder, "postgres")
    (folder / "users.txt").write_text('"postgres" ""\n')
    url, port = make_url(server.url), free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "pool_mode": pool_mode,
        "default_pool_size": 5,
        "max_client_conn": 300,
        "auth_type": "trust",
        "auth_file": folder / "users.txt",
        "admin_users": "postgres",
        "client_tls_sslmode": "allow",
        "client_tls_cert_file": folder / "server.pem",
        "client_tls_key_file": folder / "server.key",
        "server_tls_sslmode": "disable",
        **({"user": "postgres"} if os.geteuid() == 0 else {}),
        **options,
    }
    lines = [f"{name} = {value}" for name, value in settings.items()]
    file, log = folder / "pgbouncer.ini", folder / "log"
    file.write_text(
        f"[databases]\n* = host={url.host} port={url.port}\n\n"
        + "\n".join(["[pgbouncer]", *lines, ""])
    )
    with running_pgbouncer(home, file, port, log) as process:
        own = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        yield PgBouncer(own, folder / "ca.pem", process)


def unpacked(home: Path, program: str) -> list[Path | str]:
    """The command of a program that unpack.sh has put there with its libraries."""
    (loader,) = home.glob("ld-linux*")
    return [loader, "--library-path", home, home / program]


@contextmanager
def running_pgbouncer(
    home: Path, file: Path, port: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run one with its own libraries, until it listens and then to the end."""
    command = [*unpacked(home, "pgbouncer"), file]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        while True:
            assert process.poll() is None, log.read_text()
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.02)
        yield process
    finally:
        process.kill()  # SIGTERM has another meaning in each generation
        process.wait()


class Redis(Daemon):
    """A broker that can be killed and come back, with nothing of what it had."""

    PORT = "--port"

    def __init__(self, folder: Path, *options: str) -> None:
        if not shutil.which("redis-server"):
            raise RuntimeError("Redis is missing: `make servers` installs it.")
        command = ["redis-server", "--bind", "127.0.0.1", "--save", "", *options]
        super().__init__(command, folder, port_option=(self.PORT, "{}"))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self.launch()
        while True:
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            assert self.is_running, self.log.read_text()
            time.sleep(0.01)

    def ask(self, command: str) -> str:
        """Answer as its protocol has it: `:1`, `+OK`."""
        with self.console() as ask:
            return ask(command)

    @contextmanager
    def console(self) -> Iterator[Callable[[str], str]]:
        """A connection that stays, also when the broker takes no other."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:

            def ask(command: str) -> str:
                connection.sendall(f"{command}\r\n".encode())
                return connection.recv(100_000).decode().strip()

            yield ask


class EncryptedRedis(Redis):
    """A broker with TLS, whose certificate is for `localhost` alone."""

    PORT = "--tls-port"

    def __init__(self, folder: Path) -> None:
        files = ("--tls-cert-file", "server.pem", "--tls-key-file", "server.key")
        super().__init__(folder, "--port", "0", "--tls-auth-clients", "no", *files)
        self.ca = folder / "ca.pem"

    def __enter__(self) -> Self:
        super().__enter__()
        certify(self.folder, pwd.getpwuid(os.geteuid()).pw_name)
        return self

    @property
    def url(self) -> str:
        return f"rediss://localhost:{self.port}/0"


# By name; what a driver speaks to is in DRIVERS_ON.
SERVERS = {"mariadb": mariadb, "mysql": mysql, "postgresql": postgresql}


def certify(folder: Path, user: str) -> None:
    folder.chmod(0o755)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(folder / "server.key")
    for certificate in server.cert_chain_pems:
        certificate.write_to_path(folder / "server.pem", append=True)
    # PostgreSQL takes a key that is nobody else's only.
    (folder / "server.key").chmod(0o600)
    if os.geteuid() == 0:
        os.chown(folder / "server.key", pwd.getpwnam(user).pw_uid, -1)
