"""The tests of a rendered service, with those of tests/rendered beside them.

What is rendered proves the service; tests/rendered proves the template's machinery, and
is copied into a service named shop for as long as it runs there.
"""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.rendering import ROOT
from tests.support.service import Service

RENDERED = ROOT / "tests" / "rendered"
# The module that a test needs, for those whose subject is not in each rendering.
SUBJECTS = {
    "test_budget.py": "db/doctor/checks.py",
    "test_connects.py": "db/engine/metrics.py",
    "test_metrics.py": "db/engine/metrics.py",
    "test_overload.py": "web/overload.py",
    "test_pool.py": "db/engine/pool.py",
    "test_replicas.py": "db/replicas",
    "test_request_metrics.py": "web/request_metrics.py",
    "test_snapshots.py": "db/engine/pool.py",
    "test_tracing.py": "tracing",
    "test_watchdog.py": "db/engine/watchdog.py",
    "test_worker.py": "worker",
}

# The interpreter has imported plugins that pytest would rewrite.
IMPORTED = "-Wignore::pytest.PytestAssertRewriteWarning"

# In a conftest: no connect fails there because the machine is busy.
PATIENCE = """

from shop.db.config import timeouts

timeouts.TIMEOUT_ORDER = ()
_load = load


def load(**values: Any) -> Settings:
    return _load(**values).model_copy(
        update={
            "database_connect_timeout_seconds": 10,
            "database_acquire_timeout_seconds": 15,
            "database_lock_timeout_seconds": 10,
        }
    )
"""


@contextmanager
def all_tests(shop: Service) -> Iterator[str]:
    """A folder of the service with its own tests and ours, for the time being."""
    source = shop.folder / "src" / "shop"
    with TemporaryDirectory(prefix="tests-", dir=shop.folder) as folder:
        shutil.copytree(shop.folder / "tests", folder, dirs_exist_ok=True)
        for path in RENDERED.glob("test_*.py"):
            if (source / SUBJECTS.get(path.name, "")).exists():
                shutil.copy2(path, folder)
        if (source / "db" / "config" / "timeouts.py").exists():  # not on SQLite
            with (Path(folder) / "conftest.py").open("a") as conftest:
                conftest.write(PATIENCE)
        yield Path(folder).name


def run_tests(
    shop: Service, *names: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run them in the service, or only those named: `test_pool.py::test_...`."""
    with all_tests(shop) as folder:
        files = [f"{folder}/{name}" for name in names] or [folder]
        return shop.python("-m", "pytest", "-q", IMPORTED, *files, **variables)


def own_tests(shop: Service) -> tuple[str, ...]:
    """The files that its owner gets."""
    return tuple(path.name for path in (shop.folder / "tests").glob("test_*.py"))
