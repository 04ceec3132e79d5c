"""compose.yaml without docker: each command, with the variables that it gets.

Only the addresses are those of this machine, where no service has a name.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from sqlalchemy import make_url

from tests.support import manifests, servers
from tests.support.manifests import Container
from tests.support.rendering import ROOT, Answers
from tests.support.rollout import NEW, Deployed, assert_silent
from tests.support.servers import PostgreSQL, Redis
from tests.support.service import Service, free_port, wait_until

pytestmark = pytest.mark.boot

ANSWERS = {"pooler": "transaction", "with_replicas": True, "with_celery": True}
# The names of compose.yaml, which stand for addresses.
NAME = re.compile(r"(?<=[@/])(database|replica|pooler|broker)\b(:\d+)?(?=[/ ]|$)")


class Project:
    """The servers of compose.yaml on free ports, as their commands and configs say."""

    def __init__(self, shop: Service, folder: Path, stack: ExitStack) -> None:
        text = (shop.folder / "compose.yaml").read_text()
        document = yaml.safe_load(text)
        self.services: dict[str, Any] = document["services"]
        self._configs = document["configs"]
        self._folder, self._stack = folder, stack
        self.ports: dict[str, int] = {}

    def start_servers(self) -> None:
        binaries, data = servers.binaries(), self._folder / "data"
        _, _, option = self.services["database"]["command"]
        started = servers.launcher.started(binaries, data, option)
        server = PostgreSQL(self._stack.enter_context(started), Path())
        self.ports["database"] = make_url(server.url).port or 0
        # What the image does with its variables.
        server.execute("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'app'")
        server.execute("CREATE DATABASE app OWNER app")
        # No other server of this machine has its socket in the same place.
        with (data / "postgresql.conf").open("a") as file:
            file.write("unix_socket_directories = ''\n")
        script = self._configs["replication"]["content"].replace("$$", "$")
        subprocess.run(["sh", "-c", script], env={"PGDATA": str(data)}, check=True)
        server.execute("SELECT pg_reload_conf()")
        self._stack.enter_context(self._replica(binaries))
        streams = "SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"
        wait_until(lambda: len(server.execute(streams)) == 1, seconds=30)
        self._stack.enter_context(self._pooler())
        broker = Redis(self._folder / "redis", *self.services["broker"]["command"][1:])
        self._stack.enter_context(broker).start()
        self.ports["broker"] = broker.port

    def here(self, text: str) -> str:
        """With the addresses that the names have on this machine."""
        return NAME.sub(lambda found: f"127.0.0.1:{self.ports[found[1]]}", text)

    def given(self, container: Container) -> Container:
        variables = {key: self.here(it) for key, it in container.variables.items()}
        host = container.variables["DATABASE_HOST"]
        port = {"DATABASE_HOST": "127.0.0.1", "DATABASE_PORT": str(self.ports[host])}
        return replace(container, variables=variables | port)

    @contextmanager
    def _replica(self, binaries: Path) -> Iterator[None]:
        data, port = self._folder / "replica", free_port()
        data.mkdir(mode=0o700)
        user = "postgres" if os.geteuid() == 0 else None
        if user:
            shutil.chown(data, user)
        replica = self.services["replica"]
        (script,) = replica["command"]
        script = self.here(
            script.replace("$$", "$").replace("@database ", "@database/ ")
        )
        path = f"{binaries}:{os.environ['PATH']}"
        with (self._folder / "replica.log").open("w") as log:
            process = subprocess.Popen(
                [*replica["entrypoint"], script],
                user=user,
                cwd=data,
                env={"PATH": path, "PGDATA": str(data), "PGPORT": str(port)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.ports["replica"] = port
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    @contextmanager
    def _pooler(self) -> Iterator[None]:
        self.ports["pooler"] = port = free_port()
        text = self._configs["pgbouncer"]["content"]
        database = f"host=127.0.0.1 port={self.ports['database']}"
        own = f"listen_port = {port}\nunix_socket_dir =\n"
        if os.geteuid() == 0:
            own += "user = postgres\n"
        file = self._folder / "app.ini"
        file.write_text(
            text.replace("host=database", database).replace("listen_port = 6432\n", own)
        )
        home = ROOT / ".servers" / servers.PGBOUNCERS["1.24"]
        log = self._folder / "pooler.log"
        with servers.running_pgbouncer(home, file, port, log):
            yield


def test_compose_starts_what_was_answered(
    rendered: Callable[[Answers], Service],
) -> None:
    shop = rendered({"driver": "asyncpg", **ANSWERS})
    with ExitStack() as stack:
        # Not below pytest's own folder, which the user of the servers must not enter.
        folder = Path(stack.enter_context(TemporaryDirectory()))
        folder.chmod(0o755)
        project = Project(shop, folder, stack)
        project.start_servers()
        run = {
            name: Deployed(shop, project.given(container))
            for name, container in manifests.in_compose(shop.folder).items()
        }
        assert run.keys() == {"service", "migrate", "worker", "beat"}
        migrate = run["migrate"]
        done = shop.command(*migrate.container.command, **migrate.variables)
        assert done.returncode == 0, done.stderr

        others = [
            (run[name], stack.enter_context(run[name].program(ready)))
            for name, ready in (("worker", "ready."), ("beat", "beat: Starting"))
        ]
        service = run["service"]
        ports = {"PORT": str(free_port()), "METRICS_PORT": str(free_port())}
        variables = service.variables | ports
        running = stack.enter_context(
            shop.running(command=service.container.command, **variables)
        )
        # The address in the head of the file.
        assert running.client.get("/docs").status_code == 200
        order = f"/orders/{running.client.post('/orders', json=NEW).json()['id']}"
        assert running.client.post(f"{order}/pay").status_code == 202
        wait_until(lambda: running.client.get(order).json()["status"] == "paid")
        dockerfile = (shop.folder / "Dockerfile").read_text()
        (check,) = re.findall(
            r"^HEALTHCHECK .* CMD (\[.*\])$", dockerfile, re.MULTILINE
        )
        assert shop.command(*json.loads(check), **variables).returncode == 0

        for deployed, program in [(service, running), *others]:
            assert program.stop(deployed.container.grace) == 0
            assert_silent(program)
