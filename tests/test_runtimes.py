"""A service without gunicorn: one process, as Cloud Run and Lambda run it."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.proxy import Proxy
from tests.rendering import Answers, environment
from tests.servers import DRIVERS, Server
from tests.service import PROGRAMS, Service, conversation

pytestmark = pytest.mark.boot

CONVERSATION = Path(__file__).parent / "golden" / "conversation.json"
PLACES = [("cloud_run", "asyncpg")] + [
    ("lambda", driver) for driver in DRIVERS if driver != "aiosqlite"
]
# A polite end of a connection may take 2 s.
CLOSE_SECONDS = 3

ServiceOn = Callable[[str, str], Service]


@pytest.fixture(scope="session")
def service_on(rendered: Callable[[Answers], Service]) -> ServiceOn:
    def make(runtime: str, driver: str) -> Service:
        return rendered({"driver": driver, "runtime": runtime})

    return make


@pytest.mark.parametrize(("runtime", "driver"), PLACES)
def test_own_tests_pass(service_on: ServiceOn, runtime: str, driver: str) -> None:
    output = service_on(runtime, driver).make("test")

    assert re.search(r"\d+ passed", output)
    assert "skipped" not in output


@pytest.mark.parametrize(("runtime", "driver"), PLACES)
def test_service_answers_and_stops_cleanly(
    service_on: ServiceOn,
    database: Callable[[str], dict[str, str]],
    server_of: Callable[[str], Server],
    runtime: str,
    driver: str,
) -> None:
    shop, variables = service_on(runtime, driver), database(driver)
    name = str(make_url(variables["DATABASE_URL"]).database)
    shop.make("migrate", **variables)
    with shop.running(**variables) as running:
        answers = conversation(running.client)
        open_sessions = len(server_of(driver).sessions(name))
        figures = running.client.get("/metrics").status_code
        running.stop()

    assert answers == json.loads(CONVERSATION.read_text())
    log = running.log.read_text()
    assert "canary" not in log
    for line in log.splitlines():
        assert json.loads(line)["levelname"] in ("INFO", "WARNING"), line
    assert log.count("Application shutdown complete") == 1
    assert server_of(driver).sessions(name) == []
    if runtime == "lambda":
        assert (open_sessions, figures) == (0, 404)
    else:
        assert open_sessions >= 1
        assert figures == 200


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
        assert (folder / "migrations" / "env.py").exists()
        assert {"fastapi", "asyncpg"} <= {path.name for path in folder.iterdir()}
        assert not (folder / "pytest").exists()


def test_function_that_migrates_does_so(
    service_on: ServiceOn, database: Callable[[str], dict[str, str]]
) -> None:
    shop, variables = service_on("lambda", "asyncpg"), database("asyncpg")
    # Where the package has it: beside the folder `migrations`.
    program = (shop.folder / "deploy" / "migrate.py").read_text()
    (shop.folder / "migrate.py").write_text(program)
    try:
        call = "import migrate; migrate.handler({}, None)"
        done = shop.command("python", "-c", call, **variables)
    finally:
        (shop.folder / "migrate.py").unlink()

    assert done.returncode == 0, done.stderr
    with shop.running(**variables) as running:
        assert running.client.get("/orders").status_code == 200


@pytest.mark.parametrize("is_bounded", [True, False])
def test_session_on_a_silent_network_ends_in_time(
    service_on: ServiceOn,
    server_of: Callable[[str], Server],
    tmp_path: Path,
    is_bounded: bool,  # noqa: FBT001
) -> None:
    shop, server = service_on("lambda", "asyncpg"), make_url(server_of("asyncpg").url)
    changes = {}
    if not is_bounded:
        source = shop.changed(
            tmp_path / "src", "db/engine.py", "terminate=True", "terminate=terminate"
        )
        changes = {"PYTHONPATH": source}
    with Proxy("127.0.0.1", server.port or 0) as proxy:
        url = server.set(port=proxy.port).render_as_string(hide_password=False)
        with subprocess.Popen(
            [shop.folder / ".venv" / "bin" / "python", PROGRAMS / "closing.py"],
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
                    process.wait(timeout=CLOSE_SECONDS)
                process.kill()
            proxy.heal()
