"""The runbook of the README: each error is provoked, each cure helps."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support import servers
from tests.support.rendering import ROOT
from tests.support.service import Service

DRIVERS = tuple(servers.DRIVERS)
# The class behind the words, where the driver has no say in it.
CLASSES = {
    "A read session executes SELECT": "InvalidRequestError",
    "A statement has failed, so nothing can be committed": "InvalidRequestError",
    "DetachedInstanceError": "DetachedInstanceError",
    "MissingGreenlet": "MissingGreenlet",
    "PendingRollbackError": "PendingRollbackError",
    "QueuePool limit of size": "TimeoutError",
    "This session is provisioning a new connection": "InvalidRequestError",
    "attached to a different loop": "RuntimeError",
    "is not available due to lazy='raise'": "InvalidRequestError",
    "outcome-unknown": "OutcomeUnknown",
}

RUNBOOK = ROOT / "variants" / "runbook"
# Of a server that has ten connections.
OPTIONS = {
    "mysql": ("max-connections=10",),
    "postgresql": ("max_connections=10", "max_wal_senders=0"),
}


@pytest.fixture
def few_connections() -> Iterator[Callable[[str], dict[str, str]]]:
    """One more server for the driver: with ten connections, and nothing to lose."""
    with ExitStack() as stack:

        def few_connections(driver: str) -> dict[str, str]:
            dialect = servers.DRIVERS[driver]["dialect"]
            if dialect not in OPTIONS:
                return {}
            folder = Path(stack.enter_context(TemporaryDirectory()))
            server = servers.launchers[dialect].started(
                servers.binaries(dialect), folder, *OPTIONS[dialect]
            )
            return {"FEW_CONNECTIONS_URL": stack.enter_context(server)}

        yield few_connections


@pytest.mark.boot
@pytest.mark.parametrize("driver", DRIVERS)
def test_each_entry_is_provoked_and_what_it_says_helps(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    few_connections: Callable[[str], dict[str, str]],
    driver: str,
) -> None:
    shop, variables = service(driver), database(driver)
    shop.make("migrate", **variables)
    done = shop.program("runbook/provoke", **variables, **few_connections(driver))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)

    assert entries(shop.folder / "README.md").keys() == outcomes.keys()
    for words, outcome in outcomes.items():
        for run in outcome["provocations"]:
            assert words in run["log"], run
            assert "SpoiledError" not in (run["raised"] or ()), run
            assert CLASSES.get(words) in (None, *(run["raised"] or ())), run
        assert outcome["cures"], f"does the entry {words} help?"
        for run in outcome["cures"]:
            assert run["raised"] is None, run
            assert words not in run["log"], run


@pytest.mark.boot
@pytest.mark.parametrize("driver", DRIVERS)
def test_readme_lists_the_problems_that_the_service_answers(
    service: Callable[[str], Service], driver: str
) -> None:
    shop = service(driver)
    rows = re.findall(
        r"^\| (\d+) \| `urn:problem:([a-z-]+)`",
        (shop.folder / "README.md").read_text(),
        re.MULTILINE,
    )
    program = "from shop.errors import ANSWERS as a; print([[a[f][0], f] for f in a])"
    answers = shop.command("python", "-c", program).stdout

    assert rows
    assert re.findall(r"\[(\d+), <.*?: '(.*?)'>\]", answers) == rows


def test_drivers_that_share_words_share_the_entry() -> None:
    # All but SQLite's: its connections have threads, which mean something else by it.
    paths = set(RUNBOOK.glob("*.md")) - {RUNBOOK / "aiosqlite.md"}

    for one, other in combinations(map(entries, paths), 2):
        for words in one.keys() & other.keys():
            assert one[words] == other[words]


def entries(path: Path) -> dict[str, str]:
    """What the runbook says to the words in its headings."""
    found: dict[str, str] = {}
    for part in re.split("^### ", path.read_text(), flags=re.MULTILINE)[1:]:
        heading, text = part.split("\n", 1)
        text = text.split("\n## ")[0].strip()
        found |= dict.fromkeys(re.findall("`(.+?)`", heading), text)
    return found
