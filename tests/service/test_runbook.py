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
from tests.support.service import Service

DRIVERS = tuple(servers.DRIVERS)
# The class behind the words, where the driver has no say in it.
CLASSES = {
    "A read session executes SELECT": "InvalidRequestError",
    "A statement has failed, so nothing can be committed": "InvalidRequestError",
    "DetachedInstanceError": "DetachedInstanceError",
    "MissingGreenlet": "MissingGreenlet",
    "PendingRollbackError": "PendingRollbackError",
    "This session is provisioning a new connection": "InvalidRequestError",
    "attached to a different loop": "RuntimeError",
    "is not available due to lazy='raise'": "InvalidRequestError",
    "no connection within": "TimeoutError",
    "outcome-unknown": "CommitOutcomeUnknown",
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
    program = "from shop.web.errors import PROBLEMS as p"
    program += "; print([[p[kind][0], kind] for kind in p])"
    answers = shop.command("python", "-c", program).stdout

    assert rows
    assert re.findall(r"\[(\d+), <.*?: '(.*?)'>\]", answers) == rows


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_each_warning_of_the_code_is_in_the_readme(name: str) -> None:
    golden = ROOT / "tests" / "golden" / name
    quoted = re.findall(r"`([^`\n]+)`", (golden / "README.md").read_text())
    warnings = [
        warning
        for path in (golden / "src").rglob("*.py")
        for warning in warnings_of(ast.parse(path.read_text()))
    ]

    assert len(warnings) >= 5
    position = golden / "src" / name / "db" / "replicas" / "position.py"
    for warning in warnings:
        if warning.startswith(POSITION) and not sends_query(position):
            # SQLAlchemy cannot fail there: the entry would promise a record.
            assert POSITION not in quoted
            continue
        fragments = [part.strip(" :") for part in re.split(r"%\S+", warning)]
        assert any(
            fragment in words or words in fragment
            for fragment in fragments
            for words in quoted
            if " " in fragment and " " in words
        ), warning


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
        source = (package / path).read_text()
        defined = rf"^ *(async def|def|class) {word}\b|^{word}\b.* = "
        assert re.search(defined, source, re.MULTILINE), f"{path}: {word}"


@pytest.mark.parametrize("name", ["queue_pool", "null_pool"])
def test_runbook_has_the_limits_of_the_watchdog(name: str) -> None:
    text = (ROOT / "variants" / "runbook_database" / f"{name}.md").read_text()
    limits = (ROOT / "variants" / "limits" / "server.py").read_text()
    settings = (ROOT / "variants" / "config_settings" / "server.py").read_text()
    pgbouncer = (ROOT / "template" / "deploy" / "pgbouncer.ini.jinja").read_text()
    short = {
        value(limits, constant)
        for constant in ("PING_SECONDS", "RESET_SECONDS")
        if constant == "RESET_SECONDS" or name == "queue_pool"
    }

    assert {f"{seconds:.1f} s" for seconds in short} == {"1.0 s"}
    for limit in ("client_timeout", "acquire_timeout", "export_timeout"):
        seconds = value(settings, rf"    database_{limit}_seconds: \w+")
        assert f"`{seconds:.1f} s`" in text, limit
    assert "`1.0 s`" in text
    wait = value(pgbouncer, "query_wait_timeout")
    assert f"within {wait:g} s, and has closed it" in text


def value(code: str, name: str) -> float:
    (found,) = re.findall(rf"^{name} = ([\d.]+)$", code, re.MULTILINE)
    return float(found)


def test_retries_take_as_long_as_the_readme_says() -> None:
    folder = ROOT / "template" / "src" / "{{ package_name }}" / "worker"
    longest = value((folder / "settings.py").read_text(), "MAX_PAUSE_SECONDS")
    (tries,) = re.findall(r'"max_retries": (\d+)', (folder / "app.py").read_text())
    most = sum(min(2**number, longest) for number in range(int(tries)))
    tasks = (ROOT / "variants" / "tasks" / "celery.md").read_text()
    runbook = (ROOT / "variants" / "runbook_tasks" / "celery.md").read_text()

    assert f"({most // 2:g} to {most:g} s)" in tasks
    for text in (tasks, runbook):
        assert f"pauses of {most / 120:.1f} to {most / 60:.0f} minutes in all" in text


def warnings_of(module: ast.Module) -> Iterator[str]:
    """Texts of `logger.warning()`, and of `logger.log()`, with their placeholders."""
    for function in ast.walk(module):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        named = {
            target.id: node.value.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(function):
            if not isinstance(call, ast.Call):
                continue
            heads = [ast.unparse(each) for each in (call.func, *call.args)]
            if not {"logger.warning", "logger.log"} & set(heads):
                continue
            texts = [
                named.get(each.id) if isinstance(each, ast.Name) else each.value
                for each in call.args
                if isinstance(each, ast.Name | ast.Constant)
            ]
            found = [t for t in texts if isinstance(t, str) and " " in t]
            # The text of an error answer is that of PROBLEMS: see above.
            yield from [t for t in found if re.search("[a-z]{2}", t)]


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_contents_name_each_section(name: str) -> None:
    text = (ROOT / "tests" / "golden" / name / "README.md").read_text()
    head, body = text.split("\n## ", 1)
    sections = re.findall(r"^## (.+)$", f"## {body}", re.MULTILINE)
    links = re.findall(r"\[(.+?)\]\(#(.+?)\)", head)

    assert [title for title, _ in links] == sections
    for title, link in links:
        assert link == title.lower().replace(" ", "-")


@pytest.mark.parametrize("position", ["aurora", "log"])
def test_readme_has_the_waits_of_replicas(position: str) -> None:
    text = (ROOT / "variants" / "consistency" / f"{position}.md").read_text()
    router = (SOURCE / "db" / "replicas" / "router.py").read_text()
    replica = (SOURCE / "db" / "replicas" / "replica.py").read_text()
    readme = (ROOT / "template" / "README.md.jinja").read_text()
    suspect = value(replica, "SUSPECT_AFTER_SECONDS")
    assert f"waits for a probe, for {suspect:g} s at most" in readme
    assert f"is banned for {value(replica, 'BAN_SECONDS'):g} s" in readme
    interval = value(router, "PROBE_INTERVAL_SECONDS")
    for path in POSITIONS.glob("*.py"):
        if path.stem.startswith("aurora") != (position == "aurora"):
            continue
        code = path.read_text()
        wait = float(re.findall(r"^WAIT_SECONDS = (.+)$", code, re.MULTILINE)[0])
        assert (
            f"for {wait:g} s at most" if wait else "none waits for a reader"
        ) in text
        for seconds in re.findall(
            r"^STICKY_PRIMARY_SECONDS = (.+)$", code, re.MULTILINE
        ):
            assert f"For {seconds} s after a write" in text
            assert f"up to {interval:g} s until the next probe" in text


def test_drivers_that_share_words_share_the_entry() -> None:
    # All but SQLite's: its connections have threads, which mean something else by it.
    paths = set(RUNBOOK.glob("*.md")) - {RUNBOOK / "aiosqlite.md"}

    for one, other in combinations(map(entries, paths), 2):
        for words in one.keys() & other.keys():
            assert one[words] == other[words]


def entries(path: Path) -> dict[str, str]:
    """What the runbook says to the words in its headings."""
    found: dict[str, str] = {}
    written = re.sub(r"^\{%.*?%\}\n", "", path.read_text(), flags=re.MULTILINE)
    for part in re.split("^### ", written, flags=re.MULTILINE)[1:]:
        heading, text = part.split("\n", 1)
        text = text.split("\n## ")[0].strip()
        found |= dict.fromkeys(re.findall("`(.+?)`", heading), text)
    return found
