"""All renderings: they parse, look handwritten, and hold only what was chosen."""

import ast
import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rendering.conftest import Content
from tests.support.combinations import class_of, cover, tasks_of
from tests.support.rendering import Answers, fast, files, render
from tests.support.service import Service, copy

AWS = {"aws_rds", "aws_aurora", "aws_aurora_serverless"}
# Words that belong to answers: they must not appear without one, and must with each.
WORDS: dict[str, tuple[str, set[Any]]] = {
    r"database_direct_url|database_listeners|listen\(\)": (
        "pooler",
        {"transaction", "rds_proxy"},
    ),
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
    r"database_replica\w*|database_failover_hosts|read-after|_reader": (
        "with_replicas",
        {True},
    ),
    r"\w*watermark|\w*read_?your_?writes|replicas/\w+": ("with_replicas", {True}),
    r"celery\w*": ("with_celery", {True}),
    r"redis\w*|kombu|rediss": ("with_celery", {True}),
    r"traceparent|otel_\w+|tracing/\w+": ("with_tracing", {True}),
    r"beat\w*|brokers?|\w+\.enqueue|paying|sweep": ("with_celery", {True}),
    r"worker[./](app|\w*settings|runtime)": ("with_celery", {True}),
    r"eventloopthread|run_coroutine_threadsafe": ("celery_engine", {"persistent"}),
    r"kubernetes|kubectl": ("runtime", {"kubernetes"}),
    r"cloud.run|gcloud run": ("runtime", {"cloud_run"}),
    r"aws.lambda|sam build|serverless": ("runtime", {"lambda"}),
    r"docker (build|run)": ("runtime", {"container", "kubernetes", "cloud_run"}),
    r"boto3|aws iam|rds_iam|AWSAuthenticationPlugin": ("cloud", AWS),
    r"truststore\.pki": ("cloud", AWS),
    # Without these roots no verified connection to a proxy succeeds.
    r"amazontrust": ("pooler", {"rds_proxy"}),
    r"google-auth|google iam|gcloud sql": ("cloud", {"gcp_cloud_sql"}),
    r"azure-identity|entra|digicert": ("cloud", {"azure"}),
    r"supabase": ("cloud", {"supabase"}),
    r"neon": ("cloud", {"neon"}),
    r"boto3|google-auth|azure-identity|token_provider|fetch_token": (
        "auth",
        {"token"},
    ),
}
# Code in a README, which ruff formats.
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
EXTREME = {
    "project_name": "customer-notification-preferences-archive",
    "package_name": "z" * 30,
    "description": "L'été: 100 % «über» {{ nothing }} for O'Neill & co",
    "workers_per_instance": 1,
}
# What tasks add, to any class of renderings.
OF_TASKS = ("models.py", "payments.py", "tasks.py", "tracing/tasks.py", "worker/")


@pytest.fixture(scope="session")
def enough(contents: list[Content]) -> list[Path]:
    """As few renderings as show each content of each file that is linted."""
    picked: set[Path] = set()
    for content in sorted(contents, key=lambda content: len(content.renderings)):
        linted = content.path.endswith((".py", "pyproject.toml"))
        if linted and not picked & set(content.renderings):
            picked.add(content.renderings[0])
    return sorted(picked)


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
    covering = cover(list(renderings.values()), 1)
    for number, (project, answers) in enumerate(renderings.items()):
        if answers not in covering:
            continue
        folder = tmp_path / str(number) / "service"
        public = files(copy(template, folder, answers).folder)
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
        # Values of GitHub, and labels in the alerts of Prometheus.
        text = re.sub(r"\$\{\{|\{\{ \$", "", content.text)
        assert not re.search(r"\{\{|\{%|\{#", text), content.file


def test_settings_say_how_a_password_is_quoted(contents: list[Content]) -> None:
    texts = [each.text for each in contents if each.path == ".env.example"]

    assert texts
    assert all("in single quotes only: API_KEY='pa$word#1'\n" in text for text in texts)


def test_files_look_handwritten(contents: list[Content]) -> None:
    for path, text, file, _ in contents:
        if path.endswith("py.typed"):
            continue
        assert text.strip(), f"{file} is empty"
        assert text.endswith("\n"), file
        assert not text.endswith("\n\n"), file
        assert not re.search(r"[ \t]$", text, re.MULTILINE), file
        if file.suffix not in {".py", ".mako"}:
            prose = FENCED.sub("code", text) if file.suffix == ".md" else text
            assert "\n\n\n" not in prose, file
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


@pytest.mark.parametrize("words", WORDS)
def test_words_of_an_answer_need_the_answer(
    renderings: dict[Path, Answers], contents: list[Content], words: str
) -> None:
    question, needed = WORDS[words]
    word = re.compile(rf"\b({words})\b", re.IGNORECASE)
    hits = set()
    # The runtime of Lambda has boto3, whatever the cloud of the database.
    apart = {".copier-answers.yml", "deploy/start.py"}
    for path, text, file, projects in contents:
        if path in apart:
            continue
        if found := word.search(f"{path}\n{text}"):
            hits |= {renderings[project].get(question) for project in projects}
            assert hits <= needed, f"{file} says {found[0]}"
    assert hits == needed, "the table itself matches nothing"


def test_renderings_of_a_class_differ_in_the_budget_only(
    renderings: dict[Path, Answers], modules: dict[Path, list[Content]]
) -> None:
    classes: dict[Any, set[frozenset[Path]]] = defaultdict(set)
    for project, answers in renderings.items():
        files = {each.module: each.file for each in modules[project]}
        del files["db/budget.py"]
        del files["web/__init__.py"]  # where the log goes, by the cloud
        if answers.get("auth") == "token":  # for the password of the broker
            files.pop("db/config/secret_file.py", None)
        key = class_of(answers), tasks_of(answers)
        classes["features", key].add(frozenset({files.pop("features.py")}))
        of_tasks = {
            file for module, file in files.items() if module.startswith(OF_TASKS)
        }
        classes["tasks", tasks_of(answers)].add(frozenset(of_tasks))
        classes["rest", class_of(answers)].add(frozenset({*files.values()} - of_tasks))

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
        for folder in ("src", "tests"):
            shutil.rmtree(shop.folder / folder, ignore_errors=True)
        shutil.copytree(project, shop.folder, dirs_exist_ok=True)
        shop.install()
        done = shop.command("mypy")
        assert done.returncode == 0, f"{project}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (
            ".github/workflows/ci.yml",
            ["zizmor", "--offline", "--quiet", "--persona=pedantic"],
        ),
        (
            ".github/workflows/ci.yml",
            ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
        ),
        (
            "compose.yaml",
            ["check-jsonschema", "--builtin-schema", "vendor.compose-spec"],
        ),
        ("Dockerfile", ["hadolint"]),
        (
            "base/account.yaml base/migrate.yaml base/network.yaml base/pgbouncer.yaml"
            " base/service.yaml base/worker.yaml production/ingress.yaml",
            ["kubernetes-validate", "--strict"],
        ),
        ("deploy/template.yaml", ["cfn-lint"]),
        ("deploy/run.sh", ["shellcheck"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_linters_have_nothing_to_say(
    contents: list[Content], path: str, command: list[str]
) -> None:
    done = subprocess.run(
        [*command, *every(contents, *path.split())],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
