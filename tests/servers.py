"""Servers for the tests: on free ports of the loopback, ended when the tests end."""

import asyncio
import importlib.util
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import trustme

from tests.rendering import ROOT


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What starts a server in a rendered service starts ours as well.
launcher = load(ROOT / "variants" / "tests_database" / "postgresql.py")


def binaries() -> Path:
    found: Path | None = launcher.find_binaries()
    if not found:
        raise RuntimeError("PostgreSQL is missing: `make servers` installs it.")
    return found


@dataclass(frozen=True)
class PostgreSQL:
    """A server with TLS, whose certificate is for `localhost` alone."""

    url: str
    ca: Path

    def execute(self, statement: str) -> list[Any]:
        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.url)
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(fetch())

    @property
    def verified(self) -> str:
        """The URL that asks for encryption and for the right certificate."""
        url = self.url.replace("127.0.0.1", "localhost")
        return f"{url}?sslmode=verify-full&sslrootcert={self.ca}"


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """Start one as the rendered service does, but with TLS and many connections."""
    folder.chmod(0o755)
    certify(folder)
    options = (
        "ssl=on",
        f"ssl_cert_file={folder}/server.pem",
        f"ssl_key_file={folder}/server.key",
        "max_connections=300",
    )
    with launcher.started(binaries(), folder / "data", *options) as url:
        yield PostgreSQL(url, folder / "ca.pem")


def certify(folder: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    server = authority.issue_cert("localhost")
    server.private_key_pem.write_to_path(folder / "server.key")
    for certificate in server.cert_chain_pems:
        certificate.write_to_path(folder / "server.pem", append=True)
    # PostgreSQL takes a key that is nobody else's only.
    (folder / "server.key").chmod(0o600)
    if os.geteuid() == 0:
        os.chown(folder / "server.key", pwd.getpwnam("postgres").pw_uid, -1)
