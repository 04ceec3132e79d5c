"""Rendered services, their environments, and the servers that all of them use."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import plumbum

from benchmarks.seeds import fill
from tests.support import rendering
from tests.support.servers import (
    DRIVERS,
    PgBouncer,
    Server,
    mariadb,
    pgbouncer,
    postgresql,
)

HERE = Path(__file__).parent
POOL = 10  # what the default answers allow a process; all others get the same
SERVERS = {"postgresql": postgresql, "mysql": mariadb}


@dataclass(frozen=True)
class Project:
    """A service that was rendered with some answers, and its database."""

    folder: Path
    driver: str
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def dialect(self) -> str:
        return DRIVERS[self.driver]["dialect"]

    def program(self, name: str) -> Path:
        return self.folder / ".venv" / "bin" / name

    def environment(self, **changes: str) -> dict[str, str]:
        variables = {"BENCH_DRIVER": self.driver, **self.variables, **changes}
        return rendering.environment(**variables)

    def run(self, name: str, *arguments: object, **variables: str) -> str:
        """What a program of its environment prints."""
        done = subprocess.run(
            [self.program(name), *map(str, arguments)],
            cwd=self.folder,
            env=self.environment(**variables),
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr}")
        return done.stdout

    def measure(self, name: str, *numbers: int, **variables: str) -> str:
        """What one of benchmarks/programs prints."""
        path = HERE / "programs" / f"{name}.py"
        return self.run("python", path, *numbers, **variables)


@dataclass
class Workshop:
    """Renders and starts what a part asks for, once."""

    folder: Path
    stack: ExitStack
    projects: dict[tuple[str, ...], Project] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)

    @cached_property
    def template(self) -> Path:
        return rendering.snapshot(self.folder / "template")

    def server(self, dialect: str) -> Server:
        if dialect not in self.servers:
            folder = self.subfolder(dialect)
            self.servers[dialect] = self.stack.enter_context(SERVERS[dialect](folder))
        return self.servers[dialect]

    @cached_property
    def pgbouncer(self) -> PgBouncer:
        """In transaction mode, with as many sessions of the server as a pool has."""
        server, folder = self.server("postgresql"), self.subfolder("pgbouncer")
        started = pgbouncer(folder, server, "1.24", default_pool_size=POOL)
        return self.stack.enter_context(started)

    def subfolder(self, name: str) -> Path:
        """One that another user may enter: servers do not run as root."""
        folder = self.folder / name
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    def project(self, driver: str = "asyncpg", **answers: object) -> Project:
        """The service on this driver, installed, with a database that has orders."""
        key = (driver, *sorted(answers))
        if key not in self.projects:
            to = self.folder / "-".join(key) / "service"
            rendering.render(self.template, to, {"driver": driver, **answers})
            command = ["uv", "sync", "--quiet", "--no-dev"]
            environment = rendering.environment()
            subprocess.run(command, cwd=to, env=environment, check=True)
            server = self.server(DRIVERS[driver]["dialect"])
            variables = {"DATABASE_URL": server.url}
            if "pooler" in answers:  # migrations go around it
                variables["DATABASE_DIRECT_URL"] = server.url
            if "with_celery" in answers:  # nothing is published before there is one
                variables["CELERY_BROKER_URL"] = "redis://127.0.0.1:1/0"
            project = Project(to, driver, variables)
            project.run("alembic", "upgrade", "head")
            fill(server)
            self.projects[key] = project
        return self.projects[key]

    def pooled(self, **answers: object) -> Project:
        """The service behind PgBouncer, on the same database."""
        project = self.project("asyncpg", pooler="transaction", **answers)
        pooler = self.pgbouncer.through(project.variables["DATABASE_URL"])
        behind = {"DATABASE_URL": pooler, "BENCH_POOLER": "transaction"}
        return replace(project, variables=project.variables | behind)


@contextmanager
def workshop(folder: Path) -> Iterator[Workshop]:
    folder.chmod(0o755)
    home = rendering.isolate(folder / "home")
    os.environ.update(home)
    # Copier runs git by plumbum, which has copied the environment already.
    plumbum.local.env.update(home)
    with ExitStack() as stack:
        yield Workshop(folder, stack)
