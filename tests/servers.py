"""Servers for the tests: on free ports of the loopback, ended when the tests end."""

import asyncio
import importlib.util
import os
import pwd
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pymysql
import trustme
import yaml
from sqlalchemy import make_url

from tests.rendering import ROOT

DRIVERS: dict[str, dict[str, str]] = yaml.safe_load(
    (ROOT / "hooks" / "drivers.yml").read_text()
)["drivers"]["default"]
PRODUCTS = {"mysql": "MariaDB", "postgresql": "PostgreSQL"}


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
        url = make_url(self.verified).set(database=name)
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
    def execute(self, statement: str) -> list[Any]:
        url = make_url(self.url)
        with (
            pymysql.connect(
                host=url.host,
                port=url.port,
                user=url.username,
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


# Only a guest and the bearer of a token are asked for a password.
ACCESS = "host all guest,bearer all scram-sha-256\nhost all all all trust\n"


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
        "max_connections=300",
    )
    with launcher.started(binaries(), folder / "data", *options) as url:
        yield PostgreSQL(url, folder / "ca.pem")


@contextmanager
def mariadb(folder: Path) -> Iterator[Server]:
    """Start one as the rendered service does, but with TLS and many connections."""
    certify(folder, "mysql")
    options = (
        f"ssl-cert={folder}/server.pem",
        f"ssl-key={folder}/server.key",
        "max-connections=300",
        "performance-schema=ON",  # knows which sessions are encrypted
    )
    started = launchers["mysql"].started
    with started(binaries("mysql"), folder / "data", *options) as url:
        yield MariaDB(url, folder / "ca.pem")


# By dialect; what a driver speaks is in DRIVERS.
SERVERS = {"mysql": mariadb, "postgresql": postgresql}


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
