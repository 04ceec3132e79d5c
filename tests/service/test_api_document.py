"""The API document against the service: no check of schemathesis finds a difference."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.rendering import environment
from tests.support.service import Service

pytestmark = pytest.mark.boot

CONFIG = Path(__file__).with_name("schemathesis.toml")
SCHEMATHESIS = shutil.which("schemathesis", path=str(Path(sys.executable).parent))


@pytest.mark.parametrize("driver", ["asyncpg", "aiomysql", "aiosqlite"])
def test_service_does_what_its_document_says(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    assert SCHEMATHESIS, "schemathesis is missing: make"
    shop, variables = service(driver), database(driver) | {"DOCS": "true"}
    shop.migrate(**variables)
    with shop.running(**variables) as running:
        done = subprocess.run(
            [
                *(SCHEMATHESIS, f"--config-file={CONFIG}"),
                *("run", f"{running.client.base_url}/openapi.json"),
                *("--checks=all", "--seed=1"),
                *("--max-examples=15", "--phases=examples,coverage,fuzzing"),
                "--no-color",
            ],
            cwd=shop.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        log = running.log.read_text()

    assert done.returncode == 0, done.stdout[-6000:]
    assert '"ERROR"' not in log
