"""The API document against the service: schemathesis finds no undocumented answer."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.rendering import environment
from tests.support.service import Service

pytestmark = pytest.mark.boot

SCHEMATHESIS = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
# Not the checks of what is accepted: a made-up cursor is right by its schema, Pydantic
# takes `false` for 0, and to another method /orders/export is an order that is none.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,"
    "response_headers_conformance,response_schema_conformance"
)


@pytest.mark.parametrize("driver", ["asyncpg", "aiomysql", "aiosqlite"])
def test_every_answer_is_in_the_document(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    assert SCHEMATHESIS, "schemathesis is missing: make"
    shop, variables = service(driver), database(driver) | {"DOCS": "true"}
    shop.make("migrate", **variables)
    with shop.running(**variables) as running:
        done = subprocess.run(
            [
                *(SCHEMATHESIS, "run", f"{running.client.base_url}/openapi.json"),
                *(f"--checks={CHECKS}", "--seed=1"),
                *("--max-examples=20", "--phases=examples,coverage,fuzzing"),
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
