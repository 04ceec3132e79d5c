"""The runbook of the README: each error is provoked, each cure helps."""

import ast
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
from tests.support.runbook import entries
from tests.support.service import Service

DRIVERS = tuple(servers.DRIVERS)
# The class behind the words, where the driver has no say in it.
CLASSES = {
    "A read session executes one SELECT": "InvalidRequestError",
    "A statement has failed, so nothing can be committed": "InvalidRequestError",
    "DetachedInstanceError": "DetachedInstanceError",
    "MissingGreenlet": "MissingGreenlet",
    "PendingRollbackError": "PendingRollbackError",
    "This session is provisioning a new connection": "InvalidRequestError",
    "attached to a different loop": "RuntimeError",
    "is not available due to lazy='raise'": "InvalidRequestError",
    "no connection within": "TimeoutError",
}

# In test_migrations.py, tests/rendered and tests/faults.
PROVOKED_ELSEWHERE = {
    "operation id",
    "Lost connection to MySQL server",
    "MySQL server has gone away",
    "connection was closed in the middle of operation",
    "outcome-unknown",
    "server closed the connection unexpectedly",
    "terminating connection due to",
    "unhandled",
    "after the answer has begun",
    "Another migration is running",
    "The migrations lead to the models",
    "The schema is ahead of this code",
}
RUNBOOK = ROOT / "variants" / "runbook"
SOURCE = ROOT / "template" / "src" / "{{ package_name }}"
POSITIONS = ROOT / "variants" / "position"
POSITION = "no replication position after COMMIT"
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
    shop.migrate(**variables)
    done = shop.program("runbook/provoke", **variables, **few_connections(driver))
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)

    words_of = entries(shop.folder / "README.md").keys()
    assert words_of - PROVOKED_ELSEWHERE == outcomes.keys()
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
    program = "from shop.web.errors import PROBLEMS as p"
    program += "; print([[p[kind][0], kind] for kind in p])"
    answers = shop.command("python", "-c", program).stdout

    assert rows
    assert re.findall(r"\[(\d+), <.*?: '(.*?)'>\]", answers) == rows


def sends_query(position: Path) -> bool:
    """Whether commit_position() of this module asks the server."""
    (function,) = [
        node
        for node in ast.parse(position.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "commit_position"
    ]
    return function.args.args[0].arg in {
        node.id for node in ast.walk(function) if isinstance(node, ast.Name)
    }


@pytest.mark.parametrize("path", [*POSITIONS.glob("*.py")], ids=lambda path: path.stem)
def test_entry_on_positions_is_where_they_are_asked_for(path: Path) -> None:
    """Of Aurora a position is the time: no query, so no record that it has failed."""
    variant = "aurora" if path.stem.startswith("aurora") else "log"
    entry = ROOT / "variants" / "runbook_position" / f"{variant}.md"

    assert sends_query(path) == (POSITION in entries(entry))


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_code_that_the_readme_names_is_there(name: str) -> None:
    golden = ROOT / "tests" / "golden" / name
    package = golden / "src" / name
    text = (golden / "README.md").read_text()
    code = re.findall(r"`([\w./]+\.py)`(?: \(((?:`\w+`(?:, )?)+)\))?", text)
    named = [(path, word) for path, words in code for word in re.findall(r"\w+", words)]

    assert len(named) >= {"smallest": 5, "largest": 25}[name]
    for path, _ in code:
        places = [package, golden, golden / "tests", golden / "migrations"]
        assert any((each / path).exists() for each in places) or "notes.py" in path, (
            path
        )
    for path, word in named:
        place = next(each for each in (package, golden) if (each / path).exists())
        source = (place / path).read_text()
        defined = rf"^ *(async def|def|class) {word}\b|^{word}\b.* = "
        assert re.search(defined, source, re.MULTILINE), f"{path}: {word}"


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_contents_name_each_section(name: str) -> None:
    text = (ROOT / "tests" / "golden" / name / "README.md").read_text()
    head, body = text.split("\n## ", 1)
    headings = re.findall(r"^(##+) (.+)$", f"## {body}", re.MULTILINE)
    contents, questions = (
        re.findall(r"\[(.+?)\]\(#(.+?)\)", part)
        for part in head.split("Asked at night:")
    )

    assert contents == [
        (each, anchor(each)) for hashes, each in headings if hashes == "##"
    ]
    assert questions
    assert {link for _, link in questions} <= {anchor(each) for _, each in headings}


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def test_drivers_that_share_words_share_the_entry() -> None:
    # All but SQLite's: its connections have threads, which mean something else by it.
    paths = set(RUNBOOK.glob("*.md")) - {RUNBOOK / "aiosqlite.md"}

    for one, other in combinations(map(entries, paths), 2):
        for words in one.keys() & other.keys():
            assert one[words] == other[words]
