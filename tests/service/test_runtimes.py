"""A service without gunicorn: one process, as Cloud Run and Lambda run it."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.proxy import Proxy
from tests.support.rendering import Answers, environment
from tests.support.servers import Server
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

# A graceful close may take 2 s. The rest is for a busy machine.
CLOSE_SECONDS, NEVER_SECONDS = 20, 5

ServiceOn = Callable[[str, str], Service]


@pytest.fixture(scope="session")
def service_on(rendered: Callable[[Answers], Service]) -> ServiceOn:
    def make(runtime: str, driver: str) -> Service:
        answers: Answers = {"driver": driver, "cloud": "self_hosted"}
        return rendered(answers | {"runtime": runtime, "pooler": "none"})

    return make


def test_package_of_a_function_holds_the_service_and_its_migrations(
    service_on: ServiceOn, tmp_path: Path
) -> None:
    shop = service_on("lambda", "asyncpg")
    module = shop.folder / "src" / "shop" / "newest.py"
    for function in ("Service", "Migration"):
        folder = tmp_path / function
        folder.mkdir()
        try:
            module.write_text(f'FUNCTION = "{function}"\n')
            shop.make(f"build-{function}", ARTIFACTS_DIR=str(folder))
        finally:
            module.unlink()

        assert function in (folder / "shop" / "newest.py").read_text()

        assert (folder / "run.sh").stat().st_mode & 0o111
        assert (folder / "shop" / "__main__.py").exists()
        assert (folder / "migrate.py").exists()
        assert (folder / "start.py").exists()
        assert (folder / "migrations" / "env.py").exists()
        assert {"fastapi", "asyncpg"} <= {path.name for path in folder.iterdir()}
        assert not (folder / "pytest").exists()


@contextmanager
def beside_migrations(shop: Service) -> Iterator[None]:
    """The programs of a function where its package has them."""
    names = ("migrate.py", "start.py")
    for name in names:
        text = (shop.folder / "deploy" / name).read_text()
        (shop.folder / name).write_text(text)
    try:
        yield
    finally:
        for name in names:
            (shop.folder / name).unlink()


def test_function_that_migrates_does_so(
    service_on: ServiceOn, database: Callable[[str], dict[str, str]]
) -> None:
    shop, variables = service_on("lambda", "asyncpg"), database("asyncpg")
    call = "import migrate; migrate.handler({}, None)"
    with beside_migrations(shop):
        done = shop.python("-c", call, **variables)

    assert done.returncode == 0, done.stderr
    with shop.running(command=shop.start_command, **variables) as running:
        assert running.client.get("/orders").status_code == 200


@pytest.mark.parametrize("is_bounded", [True, False])
def test_connection_on_a_silent_network_is_closed_in_time(
    service_on: ServiceOn,
    server_of: Callable[[str], Server],
    tmp_path: Path,
    is_bounded: bool,  # noqa: FBT001
) -> None:
    shop, server = service_on("lambda", "asyncpg"), make_url(server_of("asyncpg").url)
    changes = {}
    if not is_bounded:
        source = shop.changed(
            *(tmp_path / "src", "db/engine/watchdog.py"),
            *("if self.has_terminate:", "if False:"),
        )
        changes = {"PYTHONPATH": source}
    with Proxy("127.0.0.1", server.port or 0) as proxy:
        url = server.set(port=proxy.port).render_as_string(hide_password=False)
        with subprocess.Popen(
            [
                shop.folder / ".venv" / "bin" / "python",
                PROGRAMS / "session_end_duration.py",
            ],
            cwd=shop.folder,
            env=environment(DATABASE_URL=url, **changes),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == "open\n"
            proxy.freeze()
            process.stdin.write("\n")
            process.stdin.flush()
            if is_bounded:
                assert float(process.stdout.readline()) < CLOSE_SECONDS
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(timeout=NEVER_SECONDS)
                process.kill()
            proxy.heal()
