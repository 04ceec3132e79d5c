"""What the README of each rendering says is what its code does."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rendering.conftest import Content
from tests.support.rendering import Answers
from tests.support.runbook import entries

SETTINGS = "db/config/settings.py"
LIMITS = "db/config/limits.py"
REPLICA = "db/replicas/replica.py"
TASKS = "worker/settings.py"
APP = "worker/app.py"
STARTUP = "db/doctor/startup_check.py"
OVERLOAD = "web/overload.py"
POOL = "db/engine/pool.py"
POSITION = "db/replicas/position.py"
KUBERNETES = "/deploy/kubernetes/base/service.yaml"


class Truth(NamedTuple):
    """A number of a sentence, and the place in the code that has it: in a module, or
    from `/` on in another file. {n} is the number; the code has it in a group.
    """

    sentence: str
    path: str
    code: str


def setting(sentence: str, name: str, path: str = SETTINGS) -> Truth:
    field = rf"^    {name}_seconds: \w+ = (?:Field\(default=)?([\d_.]+)"
    return Truth(sentence, path, field)


def constant(sentence: str, name: str, path: str) -> Truth:
    return Truth(sentence, path, rf"^{name} = ([\d_.]+)$")


TRIES = Truth("up to {n} times", APP, r'"max_retries": (\d+)')
# Each number of seconds in a README is in one of them, in VENDORS or in ADVICE.
TRUTHS = [
    # Waits of a request.
    setting("finds all connections in use waits for {n} s", "database_acquire_timeout"),
    setting("`{n} s`: a statement or COMMIT", "database_client_timeout"),
    setting("[Aa]fter {n} s the watchdog closes", "database_client_timeout"),
    setting("closes the connection after {n} s, and the", "database_client_timeout"),
    setting("fit in the {n} s after which", "database_client_timeout"),
    setting("a wait and a statement of {n} s", "database_statement_timeout"),
    setting("`{n} s`: a step of an export", "database_export_timeout"),
    setting("Up to `{n} s`: the first connection", "database_acquire_timeout"),
    setting(
        r"did not end within {n} s \(`DATABASE_LOCK_TIMEOUT", "database_lock_timeout"
    ),
    constant("`{n} s` or less: a (?:ping or a )?ROLLBACK", "RESET_SECONDS", LIMITS),
    constant("`{n} s` or less: a ping, a health probe", "PING_SECONDS", LIMITS),
    constant("yields; each may take {n} s", "PROBE_SECONDS", "web/health.py"),
    Truth("the queue predicts, {n} at most", POOL, r"^MAX_RETRY_SECONDS = (\d+)$"),
    Truth("is held for {n} to", OVERLOAD, r"^HOLD_SECONDS = \(([\d.]+), "),
    Truth("is held for 0.5 to {n} s", OVERLOAD, r"^HOLD_SECONDS = \([\d.]+, ([\d.]+)"),
    # Traces.
    constant("the export has {n} s", "FLUSH_SECONDS", "tracing/provider.py"),
    # Connections.
    constant("it was [0-9]+ to {n} s old", "LIFETIME_SECONDS", LIMITS),
    constant("replaces a connection after {n} s at most", "LIFETIME_SECONDS", LIMITS),
    constant("with the {n} s that a connection lives", "LIFETIME_SECONDS", LIMITS),
    constant("to a ping within {n} s", "PING_SECONDS", LIMITS),
    constant("checked out for over {n} s", "LEAK_SECONDS", "db/engine/metrics.py"),
    constant("waits for the check for {n} s", "START_SECONDS", STARTUP),
    Truth(
        "A migration waits {n} s", "db/migrations/dialect.py", r"lock.*?timeout\D+(\d+)"
    ),
    # PgBouncer.
    *(
        Truth(sentence, "/deploy/**/pgbouncer.ini", rf"^{name} = ([\d.]+)$")
        for sentence, name in (
            (r"After {n} s \(`query_wait_timeout`", "query_wait_timeout"),
            ("for a connection within {n} s, and has closed it", "query_wait_timeout"),
            ("waited for {n} s in the queue of PgBouncer", "query_wait_timeout"),
            (r"used for up to {n} s \(`server_lifetime`\)", "server_lifetime"),
        )
    ),
    # Replicas.
    constant("is banned for {n} s", "BAN_SECONDS", REPLICA),
    constant(r"banned for {n} s \(unreachable\)", "BAN_SECONDS", REPLICA),
    constant("a probe takes longer than {n} s", "SUSPECT_AFTER_SECONDS", REPLICA),
    constant("waits for a probe, for {n} s", "SUSPECT_AFTER_SECONDS", REPLICA),
    constant(
        "up to {n} s until the next probe",
        "PROBE_INTERVAL_SECONDS",
        "db/replicas/router.py",
    ),
    constant(
        "browsers, which is valid for {n} s",
        "READ_AFTER_SECONDS",
        "db/replicas/settings.py",
    ),
    constant("waits for such a replica for {n} s", "WAIT_SECONDS", POSITION),
    constant("is up to {n} s of `database_re", "WAIT_SECONDS", POSITION),
    constant("For {n} s after a write", "STICKY_PRIMARY_SECONDS", POSITION),
    constant("The {n} s are no", "STICKY_PRIMARY_SECONDS", POSITION),
    constant(
        r"its replication lag \({n} s", "LAG_TOLERANCE_SECONDS", "db/replicas/checks.py"
    ),
    # Tasks.
    constant("it waits {n} s at most, and", "PUBLISH_SECONDS", APP),
    constant("did not take (?:it|the task) within {n} s", "PUBLISH_SECONDS", APP),
    constant("what `sweep` publishes after {n} s", "SWEEP_SECONDS", "payments.py"),
    setting(r"`CELERY_OUTAGE_SECONDS` \({n} s\)", "celery_outage", TASKS),
    setting("`CELERY_OUTAGE_SECONDS`, {n} s", "celery_outage", TASKS),
    setting(
        r"`CELERY_VISIBILITY_TIMEOUT_SECONDS` \({n} s\)",
        "celery_visibility_timeout",
        TASKS,
    ),
    constant("in pauses of up to {n} s, and these", "MAX_PAUSE_SECONDS", TASKS),
    constant("of up to {n} s to a Redis", "MAX_PAUSE_SECONDS", "worker/consumer.py"),
    constant("connection lost within {n} s", "RETRY_WITHIN_SECONDS", "db/primary.py"),
    constant("lasted for less than {n} s", "RETRY_WITHIN_SECONDS", "db/primary.py"),
    constant("follows after 0.5 to {n} s", "MAX_PAUSE_SECONDS", TASKS),
    Truth("comes again in {n} s", APP, r'"default_retry_delay": (\d+)'),
    TRIES,
    # Deployment.
    Truth("requests have {n} s to end", "__main__.py", r"shutdown=(\d+)"),
    Truth("requests have {n} s to end", "/gunicorn.conf.py", r'_shutdown": (\d+)'),
    Truth("pod at a time and waits {n} s", KUBERNETES, r"minReadySeconds: (\d+)"),
    Truth("A pod that ends waits {n} s", KUBERNETES, r"sleep:\s+seconds: (\d+)"),
    Truth("give the container {n} s", "/compose.yaml", r"stop_grace_period: (\d+)s"),
    Truth("give them {n} s to stop", "/compose.yaml", r"stop_grace_period: (\d+)s"),
]
# What others have said.
VENDORS = (
    "which the service signs itself, uses for 10 minutes",
    "the usual 1800 s of load balancers",
    "a client that is idle for 1800 s",
    "`ConnectionBorrowTimeout` is 120 s",
    "kills an instance after 10 s",
    "reconnects for ever, in pauses of up to 30 s",
    "hold a connection for 10 ms",
)
# Examples, and when to alert.
ADVICE = (
    "`connection checked out for 31 s, possible leak",
    "failed and is retried in 1.5 s",
    r"1 in 100? takes over [\d.]+ s",
    "over 1 s for a minute",
    r"for \d+ minutes",
    r"(?:with)?in \d+ minutes",
    r"it was 1200 to",
    r"pauses of 2.5 to 5 minutes in all(?: \(151 to 303 s\))?",
)
DURATION = re.compile(r"(?<![\w.])\d[\d.]*(?= (?:s|ms|seconds|minutes)\b)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """The README without the arithmetic and code that it contains."""
    return FENCED.sub("", text)


@cache
def number(file: Path, code: str) -> float | None:
    found = re.search(code, file.read_text(), re.MULTILINE)
    return float(found[1].replace("_", "")) if found else None


def numbers(project: Path, truth: Truth) -> set[float]:
    """What the code of this rendering has."""
    if truth.path.startswith("/"):
        files = [*project.glob(truth.path[1:])]
    else:
        files = [*project.glob(f"src/*/{truth.path}")]
    return {found for file in files if (found := number(file, truth.code)) is not None}


def test_numbers_of_the_readme_are_those_of_the_code(
    renderings: dict[Path, Answers],
) -> None:
    told = set()
    for project in renderings:
        text = prose((project / "README.md").read_text())
        known: set[int] = set()
        for truth in TRUTHS:
            sentence = truth.sentence.replace("{n}", r"(\d[\d.]*)")
            for found in re.finditer(sentence, text):
                code = numbers(project, truth)
                if not code and sentence.startswith("requests have"):
                    continue  # of the other way to start it
                assert code == {float(found[1])}, (project, truth)
                known.add(found.start(1))
                told.add(truth)
        for words in (*VENDORS, *ADVICE):
            for found in re.finditer(words, text):
                known |= {*range(found.start(), found.end())}
        for found in DURATION.finditer(text):
            line = text[text.rfind("\n", 0, found.start()) : found.end() + 40]
            assert found.start() in known, f"{project}: no truth tells {line}"

    assert {*TRUTHS} - told == set()


def test_retries_take_as_long_as_the_readme_says(
    renderings: dict[Path, Answers],
) -> None:
    project = next(each for each, row in renderings.items() if row.get("with_celery"))
    (longest,) = numbers(project, constant("", "MAX_PAUSE_SECONDS", TASKS))
    (tries,) = numbers(project, TRIES)
    most = sum(min(2**tried, longest) for tried in range(int(tries)))
    readme = (project / "README.md").read_text()

    pauses = f"pauses of {most / 120:.1f} to {most / 60:.0f} minutes in all"
    assert f"{pauses} ({most // 2:g} to {most:g} s)" in readme


LOG = re.compile(r'^LOG_(STREAM|LEVEL) = "(\w+)"$', re.MULTILINE)


def test_log_is_where_its_platform_reads_it(renderings: dict[Path, Answers]) -> None:
    """Google Cloud reads `severity`, and takes a line of stderr for an error."""
    found = set()
    for project, row in renderings.items():
        (path,) = project.glob("src/*/web/__init__.py")
        is_google = row["runtime"] == "cloud_run" or row.get("cloud") == "gcp_cloud_sql"
        stream, level = ("stdout", "severity") if is_google else ("stderr", "level")
        assert dict(LOG.findall(path.read_text())) == {"STREAM": stream, "LEVEL": level}
        found.add(is_google)

    assert found == {True, False}


QUOTED = re.compile(r"`([^`\n]+)`")
POSITION_LOST = "no replication position after COMMIT"


def messages(source: str) -> Iterator[str]:
    """Texts of warnings and errors of the log, with their placeholders."""
    severe = {f"logger.{level}" for level in ("warning", "error", "exception", "log")}
    severe |= {"logger.critical"}
    for function in ast.walk(ast.parse(source)):
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
            if not severe & {*heads}:
                continue
            for each in call.args:
                text = named.get(each.id) if isinstance(each, ast.Name) else None
                text = each.value if isinstance(each, ast.Constant) else text
                # The text of an error answer is that of PROBLEMS: see test_runbook.py.
                if isinstance(text, str) and re.search("[a-z]{2}", text):
                    yield text


def fragments(message: str) -> list[str]:
    parts = [
        part.strip(" :,()") for part in re.split(r"%(?:\(\w+\))?[-\d.]*\w", message)
    ]
    return [part for part in parts if " " in part or len(part) > 8]


def test_each_warning_of_the_code_has_its_entry_in_the_runbook(
    renderings: dict[Path, Answers], modules: dict[Path, list[Content]]
) -> None:
    texts: dict[str, list[str]] = {}
    for project, row in renderings.items():
        runbook = entries(project / "README.md")
        # An entry may say that its cause has other words as well.
        titles = {*runbook, *QUOTED.findall("".join(runbook.values()))}
        for module in modules[project]:
            if module.text not in texts:
                texts[module.text] = [*messages(module.text)]
            for message in texts[module.text]:
                if "aurora" in row.get("cloud", "") and message.startswith(
                    POSITION_LOST
                ):
                    continue  # there the position is the time: no query can fail
                parts = fragments(message)
                assert any(
                    part in title or title in part for part in parts for title in titles
                ), f"{project}: {module.module} logs {message}"

    assert sum(map(len, texts.values())) > 20


class Label(NamedTuple):
    """Values of a label: the place in the README, and modules with what sets them."""

    told: str
    paths: str
    code: str


LABELS = {
    "outcome": Label(
        r"^\| `celery_tasks_total` \|.*?`outcome`: (.*?)\|",
        "worker/metrics.py",
        r'outcome"?(?: =|:).*?"(\w+)"',
    ),
    "fallbacks": Label(
        r"^\| `database_replica_fallbacks_total` \|.*?`reason`: (.*?) \|",
        "db/replicas/router.py",
        r'_move\(\w+, "(\w+)"|"(\w+)" if ready or|(?<=\(goal\) else ")([\w ]+)"',
    ),
    "bans": Label(
        r"^`replica db3:5432 banned .*? in brackets: (.*?)\.$",
        "db/replicas/replica.py",
        r'_ban\("(\w+)"',
    ),
    "closed": Label(
        r"by the `reason` of the last metric(.*?)\n\n##|`reason` of the last metric is"
        r"(.*?)$",
        "db/**/*.py",
        r'DisconnectionError\("(\w+)"\)|"(cancelled)" if|(?<=else )"(error)"',
    ),
}
# A value, not the name of a module or a metric.
VALUE = re.compile(
    r"(?:^\| |, |or |: |is )`(\w[a-z ]*)`(?= \||,| or|\)| \(|\.|$)", re.MULTILINE
)


@pytest.mark.parametrize("name", LABELS)
def test_labels_of_the_readme_are_those_of_the_code(
    renderings: dict[Path, Answers], name: str
) -> None:
    label, tables = LABELS[name], 0
    for project in renderings:
        readme = (project / "README.md").read_text()
        found = re.search(label.told, readme, re.MULTILINE | re.DOTALL)
        if not found:
            continue
        tables += 1
        told = set(VALUE.findall(": " + next(filter(None, found.groups())).strip()))
        code = {
            value
            for file in project.glob(f"src/*/{label.paths}")
            for values in re.findall(label.code, file.read_text())
            for value in ([values] if isinstance(values, str) else values)
            if value
        }
        assert told == code, project

    assert tables
