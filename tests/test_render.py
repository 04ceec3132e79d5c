"""All renderings: they parse, look handwritten, and hold only what was chosen."""

import ast
import hashlib
import json
import re
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.combinations import all_answers, cover, name
from tests.rendering import Answers, fast, files, render

# What a module of the service may import, by the order of its layers.
ARROWS = {
    "main": {"api", "db", "errors", "health", "logs", "middleware", "settings"},
    "api": {"orders", "settings"},
    "orders": {"db", "middleware", "models"},
    "models": {"db"},
    "settings": {"db"},
    "health": {"db", "errors"},
    "errors": {"db", "logs"},
    "middleware": {"errors", "logs"},
    "logs": set(),
    "db": {"db"},
    "__init__": set(),
}
# Words that belong to answers: they must not appear without one, and must with each.
WORDS = {
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
}
EXTREME = {
    "project_name": "customer-notification-preferences-and-more",
    "package_name": "z" * 30,
    "description": "L'été: 100 % «über» {{ nothing }} for O'Neill & co",
    "workers_per_instance": 1,
}
SMALLEST, LARGEST, LONGEST = 1300, 1600, 200


@pytest.fixture(scope="session")
def rows(template: Path) -> list[Answers]:
    return all_answers(template)


@pytest.fixture(scope="session")
def renderings(
    template: Path, rows: list[Answers], tmp_path_factory: pytest.TempPathFactory
) -> dict[Path, Answers]:
    """Every rendering, in one folder: a linter that starts once sees them all."""
    folder = tmp_path_factory.mktemp("renderings")
    # Not for longer than needed: what is patched is patched for every later test.
    with fast(template, folder / "source") as source:
        return {
            render(source, folder / "all" / name(row) / "service", row): row
            for row in rows
        }


@pytest.fixture(scope="session")
def distinct(renderings: dict[Path, Answers]) -> dict[str, list[Path]]:
    """Of each path, one file for every content that it has in some rendering."""
    contents: dict[str, dict[str, Path]] = defaultdict(dict)
    for project in renderings:
        for path, content in files(project).items():
            digest = hashlib.sha256(content).hexdigest()
            contents[path].setdefault(digest, project / path)
    return {path: list(found.values()) for path, found in contents.items()}


def every(distinct: dict[str, list[Path]], *suffixes: str) -> list[Path]:
    found = [p for paths in distinct.values() for p in paths]
    found = [p for p in found if p.name.endswith(suffixes)]
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


def test_python_parses(distinct: dict[str, list[Path]]) -> None:
    for path in every(distinct, ".py"):
        ast.parse(path.read_text())


def test_toml_and_yaml_parse(distinct: dict[str, list[Path]]) -> None:
    for path in every(distinct, ".toml"):
        assert tomllib.loads(path.read_text())
    for path in every(distinct, ".yml", ".yaml"):
        assert yaml.safe_load(path.read_text())


def test_nothing_of_the_template_is_left(distinct: dict[str, list[Path]]) -> None:
    for paths in distinct.values():
        for path in paths:
            text = path.read_text().replace("${{", "")
            assert not re.search(r"\{\{|\{%|\{#", text), path


def test_files_look_handwritten(distinct: dict[str, list[Path]]) -> None:
    for paths in distinct.values():
        for path in paths:
            text = path.read_text()
            if path.name == "py.typed":
                continue
            assert text.strip(), f"{path} is empty"
            assert text.endswith("\n"), path
            assert not text.endswith("\n\n"), path
            assert not re.search(r"[ \t]$", text, re.MULTILINE), path
            if path.suffix not in {".py", ".mako"}:
                assert "\n\n\n" not in text, path
                assert not text.startswith("\n"), path


def test_ruff_finds_nothing_to_fix(
    template: Path, renderings: dict[Path, Answers]
) -> None:
    folder = next(iter(renderings)).parents[1]
    for row in renderings.values():
        # The longest names and the oddest text that are accepted.
        render(template, folder / f"{name(row)}-extreme", row | EXTREME)
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        done = subprocess.run(
            ["ruff", *command, folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_imports_point_one_way(renderings: dict[Path, Answers]) -> None:
    for project in renderings:
        (package,) = (project / "src").iterdir()
        for path in package.rglob("*.py"):
            layer = path.relative_to(package).parts[0].removesuffix(".py")
            assert imported(path, package) <= ARROWS[layer], path


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
    renderings: dict[Path, Answers], words: str
) -> None:
    question, needed = WORDS[words]
    word = re.compile(rf"\b({words})\b", re.IGNORECASE)
    hits = set()
    for project, answers in renderings.items():
        for path, content in files(project).items():
            if path == ".copier-answers.yml":
                continue
            found = word.search(f"{path}\n{content.decode()}")
            if found:
                hits.add(answers.get(question))
                assert hits <= needed, f"{path} of {answers} says {found[0]}"
    assert hits == needed, "the table itself matches nothing"


def test_renderings_of_a_class_differ_in_the_budget_only(
    renderings: dict[Path, Answers],
) -> None:
    classes: dict[str, set[str]] = defaultdict(set)
    for project, answers in renderings.items():
        source = {
            path: content.decode()
            for path, content in files(project).items()
            if path.startswith("src/") and not path.endswith("db/budget.py")
        }
        classes[answers["driver"]].add(json.dumps(source))

    assert {len(found) for found in classes.values()} == {1}


def test_code_stays_small(renderings: dict[Path, Answers]) -> None:
    sizes = []
    for project in renderings:
        lines = {path: code_lines(path) for path in (project / "src").rglob("*.py")}
        assert max(lines.values()) <= LONGEST
        sizes.append(sum(lines.values()))

    assert min(sizes) <= SMALLEST
    assert max(sizes) <= LARGEST


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
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_linters_have_nothing_to_say(
    distinct: dict[str, list[Path]], path: str, command: list[str]
) -> None:
    done = subprocess.run(
        [*command, *distinct[path]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
