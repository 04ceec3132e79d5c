"""All renderings: they parse, look handwritten, and hold only what was chosen."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.conftest import Once
from tests.support.combinations import class_of, cover, name, tasks_of
from tests.support.rendering import Answers, fast, files, render
from tests.support.service import Service

# What a module of the service may import, by the order of its layers.
ARROWS = {
    "__main__": {"main"},
    "main": {"api", "db", "errors", "health", "logs", "probe", "settings", "stack"},
    "stack": {"consistency", "middleware", "settings"},
    "consistency": {"db"},
    "api": {"orders", "settings"},
    "orders": {"db", "middleware", "models", "payments"},
    "payments": {"db", "models", "worker"},
    "work": {"logs", "settings", "task_figures", "worker"},
    "jobs": {"db", "worker"},
    "worker": {"db", "origin", "process", "task_figures", "worker_settings"},
    "origin": {"db", "logs"},
    "process": {"db", "settings"},
    "task_figures": set(),
    "worker_settings": {"db"},
    "acknowledgement": {"db"},
    "models": {"db"},
    "settings": {"db"},
    "health": {"probe"},
    "probe": {"db", "errors"},
    "errors": {"db", "logs"},
    "middleware": {"errors", "logs"},
    "logs": set(),
    "db": {"db"},
    "__init__": set(),
}
AWS = {"aws_rds", "aws_aurora", "aws_aurora_serverless"}
# Words that belong to answers: they must not appear without one, and must with each.
WORDS: dict[str, tuple[str, set[Any]]] = {
    r"database_direct_url": ("pooler", {"transaction", "rds_proxy"}),
    r"pgbouncer": ("pooler", {"session", "transaction", "rds_proxy"}),
    r"rds proxy": ("pooler", {"rds_proxy"}),
    r"asyncpg": ("driver", {"asyncpg"}),
    r"psycopg": ("driver", {"psycopg"}),
    r"aiomysql": ("driver", {"aiomysql"}),
    r"asyncmy": ("driver", {"asyncmy"}),
    r"aiosqlite|sqlite\w*|pragma": ("driver", {"aiosqlite"}),
    r"postgres(ql)?|psql|pg_\w+": ("driver", {"asyncpg", "psycopg"}),
    r"mysqld?|mariadbd?|innodb\w*": ("driver", {"aiomysql", "asyncmy"}),
    r"sslmode|max_connections": (
        "driver",
        {"asyncpg", "psycopg", "aiomysql", "asyncmy"},
    ),
    r"gunicorn": ("runtime", {"container", "kubernetes"}),
    r"prometheus\w*": ("runtime", {"container", "kubernetes", "cloud_run"}),
    r"database_replica\w*|read-after|_reader": ("with_replicas", {True}),
    r"celery\w*": ("with_celery", {True}),
    r"redis\w*|kombu|rediss": ("with_celery", {True}),
    r"beat|brokers?|tasks?\.enqueue|paying|sweep": ("with_celery", {True}),
    r"asyncio\.run_coroutine_threadsafe|add_reader": ("celery_engine", {"persistent"}),
    r"kubernetes|kubectl": ("runtime", {"kubernetes"}),
    r"cloud.run|gcloud run": ("runtime", {"cloud_run"}),
    r"aws.lambda|sam build|serverless": ("runtime", {"lambda"}),
    r"docker (build|run)": ("runtime", {"container", "kubernetes", "cloud_run"}),
    r"boto3|aws iam|rds_iam|AWSAuthenticationPlugin": ("cloud", AWS),
    r"rds\.pem": ("cloud", AWS),
    r"google-auth|google iam|gcloud sql": ("cloud", {"gcp_cloud_sql"}),
    r"azure-identity|entra|digicert": ("cloud", {"azure"}),
    r"supabase": ("cloud", {"supabase"}),
    r"neon": ("cloud", {"neon"}),
    r"boto3|google-auth|azure-identity|issuer": ("auth", {"token"}),
}
EXTREME = {
    "project_name": "customer-notification-preferences-and-more",
    "package_name": "z" * 30,
    "description": "L'été: 100 % «über» {{ nothing }} for O'Neill & co",
    "workers_per_instance": 1,
}
SMALLEST, LARGEST, LONGEST = 1400, 3200, 200
# What tasks add, to any class of renderings.
OF_TASKS = {
    *("acknowledgement.py", "fleet.py", "jobs.py", "models.py", "origin.py"),
    *("payments.py", "process.py", "task_figures.py", "work.py", "worker.py"),
    "worker_settings.py",
}


@pytest.fixture(scope="session")
def rows(accepted: list[Answers]) -> list[Answers]:
    """All of them; with Celery, which adds the same to each, each pair of answers."""
    with_celery = [row for row in accepted if row.get("with_celery")]
    others = [row for row in accepted if not row.get("with_celery")]
    return others + cover(with_celery, 2)


@pytest.fixture(scope="session")
def renderings(template: Path, rows: list[Answers], once: Once) -> dict[Path, Answers]:
    """Every rendering, in one folder: a linter that starts once sees them all."""

    def fill(folder: Path) -> None:
        # Not for longer than needed: what is patched is patched for every later test.
        with fast(template, folder / "source") as source:
            for row in rows:
                render(source, folder / "all" / name(row) / "service", row)

    folder = once("renderings", fill)
    return {folder / "all" / name(row) / "service": row for row in rows}


class Content(NamedTuple):
    """What a file holds in some renderings."""

    path: str
    text: str
    file: Path  # in one of them
    renderings: list[Path]


@pytest.fixture(scope="session")
def contents(renderings: dict[Path, Answers]) -> list[Content]:
    """Of each path, every content that it has: each is looked at once."""
    found: dict[tuple[str, bytes], Content] = {}
    for project in renderings:
        for path, content in files(project).items():
            new = Content(path, content.decode(), project / path, [])
            found.setdefault((path, content), new).renderings.append(project)
    return list(found.values())


@pytest.fixture(scope="session")
def enough(contents: list[Content]) -> list[Path]:
    """As few renderings as show each content of each file that is linted."""
    picked: set[Path] = set()
    for content in sorted(contents, key=lambda content: len(content.renderings)):
        linted = content.path.endswith((".py", "pyproject.toml"))
        if linted and not picked & set(content.renderings):
            picked.add(content.renderings[0])
    return sorted(picked)


@pytest.fixture(scope="session")
def sources(
    renderings: dict[Path, Answers], contents: list[Content]
) -> dict[Path, frozenset[Path]]:
    """What each rendering has in src/, apart from the numbers of the budget."""
    found: dict[Path, set[Path]] = {project: set() for project in renderings}
    for path, _, file, projects in contents:
        if path.startswith("src/") and not path.endswith("db/budget.py"):
            for project in projects:
                found[project].add(file)
    return {project: frozenset(files) for project, files in found.items()}


def every(contents: list[Content], *suffixes: str) -> list[Path]:
    found = [content.file for content in contents if content.path.endswith(suffixes)]
    assert found, f"no rendering has a file {suffixes}"
    return found


def test_covers_cover(rows: list[Answers]) -> None:
    pairs = cover(rows, 2)

    assert len(pairs) <= len(rows)
    for row in rows:
        for first in row.items():
            for second in row.items():
                assert any({first, second} <= set(pick.items()) for pick in pairs)


def test_fast_path_renders_what_the_public_one_renders(
    template: Path, renderings: dict[Path, Answers], tmp_path: Path
) -> None:
    for number, (project, answers) in enumerate(renderings.items()):
        if answers not in cover(list(renderings.values()), 1):
            continue
        public = files(render(template, tmp_path / str(number) / "service", answers))
        quick = files(project)
        recorded = ".copier-answers.yml"

        assert public.pop(recorded)
        assert quick.pop(recorded)
        assert public == quick


def test_python_parses(contents: list[Content]) -> None:
    for path in every(contents, ".py"):
        ast.parse(path.read_text())


def test_toml_and_yaml_parse(contents: list[Content]) -> None:
    for path in every(contents, ".toml"):
        assert tomllib.loads(path.read_text())
    for path in every(contents, ".yml", ".yaml"):
        if path.name != "template.yaml":  # has tags of CloudFormation
            assert all(yaml.safe_load_all(path.read_text()))


def test_nothing_of_the_template_is_left(contents: list[Content]) -> None:
    for content in contents:
        text = content.text.replace("${{", "")
        assert not re.search(r"\{\{|\{%|\{#", text), content.file


def test_files_look_handwritten(contents: list[Content]) -> None:
    for path, text, file, _ in contents:
        if path.endswith("py.typed"):
            continue
        assert text.strip(), f"{file} is empty"
        assert text.endswith("\n"), file
        assert not text.endswith("\n\n"), file
        assert not re.search(r"[ \t]$", text, re.MULTILINE), file
        if file.suffix not in {".py", ".mako"}:
            assert "\n\n\n" not in text, file
            assert not text.startswith("\n"), file


def test_ruff_finds_nothing_to_fix(
    template: Path,
    renderings: dict[Path, Answers],
    enough: list[Path],
    tmp_path: Path,
) -> None:
    extremes = tmp_path / "extremes"
    with fast(template, tmp_path / "source") as source:
        for number, project in enumerate(enough):
            # The longest names and the oddest text that are accepted.
            render(source, extremes / str(number), renderings[project] | EXTREME)
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            ["ruff", *command, *enough, extremes],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_imports_point_one_way(contents: list[Content]) -> None:
    for path, _, file, projects in contents:
        if not (path.startswith("src/") and path.endswith(".py")):
            continue
        package = projects[0] / "src" / path.split("/")[1]
        layer = file.relative_to(package).parts[0].removesuffix(".py")
        assert imported(file, package) <= ARROWS[layer], file


def imported(path: Path, package: Path) -> set[str]:
    """Names of the layers that a module imports, by relative imports alone."""
    here = path.relative_to(package).parent.parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not any(a.name.startswith(package.name) for a in node.names), path
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != package.name, path
        if isinstance(node, ast.ImportFrom) and node.level:
            above = here[: len(here) - node.level + 1]
            full = (*above, *(node.module or "").split("."))
            names = [n for n in full if n] or [alias.name for alias in node.names]
            found.add(names[0])
    return found


@pytest.mark.parametrize("words", WORDS)
def test_words_of_an_answer_need_the_answer(
    renderings: dict[Path, Answers], contents: list[Content], words: str
) -> None:
    question, needed = WORDS[words]
    word = re.compile(rf"\b({words})\b", re.IGNORECASE)
    hits = set()
    for path, text, file, projects in contents:
        if path == ".copier-answers.yml":
            continue
        if found := word.search(f"{path}\n{text}"):
            hits |= {renderings[project].get(question) for project in projects}
            assert hits <= needed, f"{file} says {found[0]}"
    assert hits == needed, "the table itself matches nothing"


def test_renderings_of_a_class_differ_in_the_budget_only(
    renderings: dict[Path, Answers], sources: dict[Path, frozenset[Path]]
) -> None:
    classes: dict[Any, set[frozenset[Path]]] = defaultdict(set)
    for project, answers in renderings.items():
        of_tasks = {file for file in sources[project] if file.name in OF_TASKS}
        classes[class_of(answers)].add(sources[project] - of_tasks)
        classes[tasks_of(answers)].add(frozenset(of_tasks))

    assert {len(found) for found in classes.values()} == {1}


@pytest.mark.boot
def test_types_are_right(renderings: dict[Path, Answers], tmp_path: Path) -> None:
    """Of each pair of what decides about the source, for there are a hundred classes.

    One after the other in one place, where mypy remembers what it has seen.
    """
    shop = Service(tmp_path / "shop")
    projects = {
        (*class_of(row), row.get("celery_engine")): project
        for project, row in renderings.items()
    }
    classes = [dict(enumerate(each)) for each in projects]
    for each in cover(classes, 2):
        project = projects[tuple(each.values())]
        shutil.rmtree(shop.folder / "src", ignore_errors=True)
        shutil.copytree(project, shop.folder, dirs_exist_ok=True)
        shop.install()
        done = shop.command("mypy")
        assert done.returncode == 0, f"{project}\n{done.stdout}{done.stderr}"


def test_code_stays_small(contents: list[Content]) -> None:
    sizes: Counter[Path] = Counter()
    for path, _, file, projects in contents:
        if path.startswith("src/") and path.endswith(".py"):
            lines = code_lines(file)
            assert lines <= LONGEST, file
            sizes.update(dict.fromkeys(projects, lines))

    assert min(sizes.values()) <= SMALLEST
    assert max(sizes.values()) <= LARGEST, max(sizes, key=sizes.__getitem__)


def code_lines(path: Path) -> int:
    """Lines without blanks, comments and docstrings."""
    text = path.read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in skipped
    )


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (".github/workflows/ci.yml", ["zizmor", "--offline", "--quiet"]),
        (
            ".github/workflows/ci.yml",
            ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
        ),
        (
            "compose.yaml",
            ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
        ),
        ("Dockerfile", ["hadolint"]),
        ("deploy/kubernetes.yaml", ["kubernetes-validate", "--strict"]),
        ("deploy/kubernetes-migrate.yaml", ["kubernetes-validate", "--strict"]),
        ("deploy/template.yaml", ["cfn-lint"]),
        ("deploy/run.sh", ["shellcheck"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_linters_have_nothing_to_say(
    contents: list[Content], path: str, command: list[str]
) -> None:
    done = subprocess.run(
        [*command, *every(contents, path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
