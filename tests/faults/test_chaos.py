"""Requests while sessions are killed: every answer is true, every read is answered."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.rendering import ROOT
from tests.support.servers import DRIVERS, NETWORKED, NETWORKED_ON
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

REQUESTS = 2000
EXPECTED = {"200", "201", "204", "503", "504"}


@pytest.mark.parametrize(("driver", "server"), [*NETWORKED_ON, ("aiosqlite", "")])
def test_answers_are_true_while_sessions_are_killed(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    variables = database(driver, server) | {
        "PYTHONPATH": f"{ROOT}:{PROGRAMS}",
        "DATABASE_BUDGET_CHECK": "off",
    }
    done = service(driver).program("faults/chaos", str(seed), **variables)

    assert done.returncode == 0, f"{seed}: {done.stderr}"
    report = json.loads(done.stdout)
    print(seed, report)
    assert sum(report["statuses"].values()) == REQUESTS
    assert report["statuses"].keys() <= EXPECTED
    assert report["wrong"] == {"missing": [], "there": [], "unclear": [], "torn": 0}
    assert report["disturbances"] > 1
    assert report["statuses"]["503"] > 0, "some are disturbed"
    # SQLite has answered each COMMIT.
    assert DRIVERS[driver]["dialect"] != "sqlite" or "504" not in report["statuses"]
    assert report["after"] == {"200": 20}
    assert report["pool"] == [0, 0], "the pool is whole"
    loud = [line for line in done.stderr.splitlines() if '"ERROR"' in line]
    assert loud == []


@pytest.mark.parametrize(
    ("driver", "is_repeated"),
    [*((driver, True) for driver in NETWORKED), ("asyncpg", False), ("asyncmy", False)],
)
def test_every_read_is_answered_while_all_sessions_are_killed(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    driver: str,
    is_repeated: bool,  # noqa: FBT001
) -> None:
    """Four times, and never the same read twice: a read is repeated once."""
    shop, path = service(driver), f"{ROOT}:{PROGRAMS}"
    if not is_repeated:
        code, without = "        if not lost or ", "        if True or "
        source = shop.changed(tmp_path / "src", "db/primary.py", code, without)
        path = f"{source}:{path}"
    variables = database(driver) | {
        "PYTHONPATH": path,
        "DATABASE_BUDGET_CHECK": "off",
    }
    done = shop.program("faults/reads", **variables)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report)
    assert len(report["ended"]) == 4
    assert min(report["ended"]) > 1
    assert (report["statuses"].keys() == {"200"}) is is_repeated
    assert report["pool"] == [0, 0]
