"""The template as Copier gets it: a clean clone, tagged as the next release."""

import fcntl
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import plumbum
import pytest

from tests.support import memory, rendering
from tests.support.bytecode import share
from tests.support.clusters import Cluster, own_cluster
from tests.support.combinations import all_answers, name
from tests.support.rendering import Answers, Render
from tests.support.servers import (
    SERVERS,
    PgBouncer,
    Server,
    pgbouncer,
    usual_server,
)
from tests.support.service import Service

# By a name and what fills the folder.
Once = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """Let tests write into memory where it has room: they write 200,000 files.

    The data of database servers, some GiB, stay on the disk.
    """
    if "PYTEST_DEBUG_TEMPROOT" not in os.environ and memory.has_room():
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(memory.FOLDER)
        # uv cannot link hard from its cache, which is on the disk.
        os.environ.setdefault("UV_LINK_MODE", "symlink")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The time of each folder, over all workers of xdist."""
    seconds: dict[str, float] = defaultdict(float)
    for report in chain.from_iterable(terminalreporter.stats.values()):
        if isinstance(report, pytest.TestReport):
            folder = report.nodeid.partition("::")[0].rpartition("/")[0]
            seconds[folder] += report.duration
    if len(seconds) > 1:
        terminalreporter.section("seconds by folder")
        for folder, total in sorted(seconds.items(), key=lambda each: -each[1]):
            terminalreporter.line(f"{total:8.0f}  {folder}")


@pytest.fixture(scope="session", autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith("GIT_"):
                patch.delenv(variable)
        for name, value in rendering.isolate(tmp_path_factory.mktemp("home")).items():
            patch.setenv(name, value)
            # Copier runs git by plumbum, which has copied the environment already.
            patch.setitem(plumbum.local.env, name, value)  # type: ignore[arg-type]
        # Of the libraries mypy remembers what it has seen in another service.
        patch.setenv("MYPY_CACHE_DIR", str(tmp_path_factory.mktemp("mypy")))
        with rendering.frugal(tmp_path_factory.mktemp("copier")):
            yield


@pytest.fixture(scope="session")
def template(isolated: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: ARG001
    return rendering.snapshot(tmp_path_factory.mktemp("template") / "clone")


@pytest.fixture(scope="session")
def server_of() -> Iterator[Callable[..., Server]]:
    """The server that a driver speaks to, started when it is first asked for.

    `server_of("asyncmy")` is MariaDB, `server_of("asyncmy", "mysql")` MySQL itself.
    """
    started: dict[str, Server] = {}
    with ExitStack() as stack:

        def server_of(driver: str, name: str = "") -> Server:
            name = name or usual_server(driver)
            if name not in started:
                # Not below pytest's own folder, which other users must not enter.
                folder = Path(stack.enter_context(TemporaryDirectory()))
                started[name] = stack.enter_context(SERVERS[name](folder))
            return started[name]

        yield server_of


@pytest.fixture(scope="session")
def server(server_of: Callable[[str], Server]) -> Server:
    return server_of("asyncpg")


@pytest.fixture(scope="session")
def cluster_of() -> Iterator[Callable[[str], Cluster]]:
    """The cluster of servers of that name, started when it is first asked for, and
    then healed.

    Tests that promote a replica take an `own_cluster`.
    """
    started: dict[str, Cluster] = {}
    with ExitStack() as stack:

        def cluster_of(name: str) -> Cluster:
            if name not in started:
                started[name] = stack.enter_context(own_cluster(name))
            started[name].heal()
            return started[name]

        yield cluster_of


@pytest.fixture(scope="session")
def pooler_of(server: Server) -> Iterator[Callable[..., PgBouncer]]:
    """A PgBouncer of that generation and mode, started when it is first asked for."""
    started: dict[tuple[str, str, int], PgBouncer] = {}
    with ExitStack() as stack:

        def pooler_of(
            generation: str, mode: str = "transaction", size: int = 5
        ) -> PgBouncer:
            key = generation, mode, size
            if key not in started:
                folder = Path(stack.enter_context(TemporaryDirectory()))
                started[key] = stack.enter_context(
                    pgbouncer(
                        *(folder, server, generation),
                        pool_mode=mode,
                        default_pool_size=size,
                    )
                )
            return started[key]

        yield pooler_of


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """A folder of that name, filled by the first worker that asks for it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def once(name: str, fill: Callable[[Path], object]) -> Path:
        place = shared / name
        place.mkdir(parents=True, exist_ok=True)
        folder, ready = place / "shared", place / "ready"
        with (place / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not ready.exists():
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder)
                ready.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def accepted(template: Path, once: Once) -> list[Answers]:
    """Every answer set that the questionnaire accepts."""

    def fill(folder: Path) -> None:
        folder.mkdir()
        (folder / "accepted.json").write_text(json.dumps(all_answers(template)))

    found: list[Answers] = json.loads(
        (once("accepted", fill) / "accepted.json").read_text()
    )
    return found


@pytest.fixture(scope="session")
def quickly(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render as the command does, which takes 2 s; test_render.py compares the two."""
    source = tmp_path_factory.mktemp("source") / "template"

    def render(to: Path, answers: Answers) -> Path:
        # Not for longer: what is patched is patched for every other test.
        with rendering.fast(template, source):
            return rendering.render(source, to, answers)

    return render


@pytest.fixture(scope="session")
def install(once: Once) -> Callable[[Service], Service]:
    """Make the environment of a service, its libraries compiled as in the last one."""
    compiled = once("compiled", Path.mkdir)

    def install(shop: Service) -> Service:
        shop.install()
        share(shop.folder / ".venv", compiled)
        return shop

    return install


@pytest.fixture(scope="session")
def rendered(
    quickly: Render,
    once: Once,
    install: Callable[[Service], Service],
) -> Callable[[Answers], Service]:
    """The service of these answers, with its environment; linted in test_render.py.

    Tests that change a file of it work on a copy.
    """

    def make(answers: Answers) -> Service:
        def fill(folder: Path) -> None:
            install(Service(quickly(folder / "shop", answers)))

        return Service(once(f"services/{name(answers)}", fill) / "shop")

    return make


@pytest.fixture(scope="session")
def service(rendered: Callable[[Answers], Service]) -> Callable[[str], Service]:
    """The service on a driver, and with no other answer."""
    return lambda driver: rendered({"driver": driver})


@pytest.fixture(scope="session")
def routed(rendered: Callable[[Answers], Service]) -> Callable[[str], Service]:
    """The service on a driver, with replicas."""
    return lambda driver: rendered({"driver": driver, "with_replicas": True})


@pytest.fixture
def database(
    server_of: Callable[..., Server], tmp_path: Path
) -> Callable[..., dict[str, str]]:
    """The variables of an empty database for the driver, over TLS where it can be.

    `database("asyncmy", "mysql")` is on MySQL itself: see DRIVERS_ON.
    """

    def variables(driver: str, server: str = "") -> dict[str, str]:
        if driver == "aiosqlite":
            return {"DATABASE_PATH": str(tmp_path / "shop.sqlite3")}
        name = f"db_{tmp_path.name.lower()}"
        return {"DATABASE_URL": server_of(driver, server).database(name)}

    return variables
