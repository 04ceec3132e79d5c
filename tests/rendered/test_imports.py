"""A process of the service imports what was chosen, and no tool."""

import subprocess
import sys
from pathlib import Path

import shop
from shop.db.config.backend import DRIVER

DRIVERS = {"asyncpg", "psycopg", "aiomysql", "asyncmy", "aiosqlite"}
# Of migrations, tests, servers, and of what an add-on needs.
TOOLS = {"alembic", "mako", "pytest", "httpx2", "gunicorn", "jinja2", "yaml"}
ADD_ONS = {"worker": {"celery", "kombu", "redis"}}


def test_start_imports_what_was_chosen() -> None:
    program = "import sys, shop.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    unused = TOOLS | (DRIVERS - {DRIVER})
    for folder, names in ADD_ONS.items():
        if not (Path(shop.__path__[0]) / folder).exists():
            unused |= names
    imported = {name.partition(".")[0] for name in done.stdout.split()}

    assert DRIVER in imported
    assert imported & unused == set()
    is_traced = (Path(shop.__path__[0]) / "tracing").exists()
    assert ("opentelemetry.sdk" in done.stdout) is is_traced
