"""Rules for the sources of the template, which no rendering could show."""

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from copier._template import load_template_config

from tests.support.rendering import ROOT

SOURCES = [
    path
    for folder in ("template", "variants")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix != ".png"
    if not {"__pycache__", ".ruff_cache"} & set(path.parts)
]
CONTROL = re.compile(r"\{%.*?%\}", re.DOTALL)
INCLUDE = re.compile(
    r'\{% include "variants/[a-z_]+/(" ~ [a-z_]+ ~ "\.[a-z]+|[A-Za-z.]+)" %\}\n'
)
RAW = re.compile(r"\{% (end)?raw %\}")
# What is no program may have more conditions, one within another.
DECLARATIVE = (".example", ".ini", ".md", ".toml", ".yaml", ".yml")
CONDITION = re.compile(r" *\{%-? (if( not)? [a-z_]+|else|endif) -?%\}")
# What stands alone on its line without a branch: a number with a name.
ASSIGNMENT = re.compile(r"\{% set [a-z_]+ = [^%]+ %\}")
# What a sentence says in some renderings only.
CLAUSE = re.compile(r"\{% if( not)? [a-z_]+ %\}((?!\{%).)+\{% endif %\}")
SUBSTITUTION = re.compile(r"\{\{ (.*?) \}\}")
SOURCE = ROOT / "template" / "src" / "{{ package_name }}"
# What is generated from the answers: the rest of the source has no substitution.
GENERATED = {"features.py", "db/features.py", "db/budget.py"}
IMPORT = re.compile(r"from (\.[\w.]*) import (\w+)(?: as (\w+))?")
NEEDS_TRUST = {"_tasks", "_jinja_extensions", "_migrations", "_external_data"}


def config() -> dict[str, object]:
    loaded: dict[str, object] = load_template_config(ROOT / "copier.yml")
    return loaded


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_copy_needs_no_trust() -> None:
    assert not NEEDS_TRUST & config().keys()


@pytest.mark.parametrize(
    "command",
    [
        ["zizmor", "--offline", "--quiet", "--persona=pedantic", ".github"],
        [
            *("check-jsonschema", "--builtin-schema", "vendor.github-workflows"),
            ".github/workflows/ci.yml",
        ],
        ["check-jsonschema", "--builtin-schema", "vendor.renovate", "renovate.json"],
        [
            "shellcheck",
            ".ci/run",
            "tests/support/servers.sh",
            "tests/support/unpack.sh",
        ],
    ],
    ids=" ".join,
)
def test_linters_have_nothing_to_say_of_what_ci_runs(command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_renovate_finds_what_it_shall_bring() -> None:
    """In files with Jinja, which none of its managers reads by itself."""
    found: dict[str, set[str]] = {}
    settings = json.loads((ROOT / "renovate.json").read_text())
    for manager in settings["customManagers"]:
        for file in manager["managerFilePatterns"]:
            text = (ROOT / file).read_text()
            for pattern in manager["matchStrings"]:
                named = pattern.replace("(?<", "(?P<")
                for each in re.finditer(named, text):
                    found.setdefault(each["depName"], set()).add(each["currentValue"])

    assert found.keys() == {"python", "squawk-cli", "uv"}
    assert {len(versions) for versions in found.values()} == {1}


def test_names_in_exclude_have_a_default() -> None:
    """While an older release is rendered, this release's new names do not exist."""
    text = "\n".join(str(pattern) for pattern in config()["_exclude"])  # type: ignore[attr-defined]
    for expression in re.findall(r"\{%-? *if (.*?)%\}|\{\{(.*?)\}\}", text):
        names = re.findall(
            r"\b[a-z_]+\b", re.sub(r"\"[^\"]*\"", "", "".join(expression))
        )
        free = set(names) - {"_copier_operation", "default", "not", "and", "or"}
        for name in free:
            assert re.search(rf"\b{name} \| default\(", "".join(expression)), name


def test_whatever_follows_from_the_answers_is_locked() -> None:
    for name, details in config().items():
        if isinstance(details, dict) and details.get("when") is False:
            assert "cannot be set" in details.get("validator", ""), name


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_file_names_are_plain(path: Path) -> None:
    """A condition in a name is hidden from editors; some characters from Windows."""
    name = relative(path).replace("{{ package_name }}", "package")
    name = name.replace("{{ _copier_conf.answers_file }}", ".copier-answers.yml")

    assert re.fullmatch(r"[\w./-]+", name)


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if "variants" in p.parts and p.suffix == ".py"],
    ids=relative,
)
def test_variants_of_python_are_plain_files(path: Path) -> None:
    """A tool reads them as they lie."""
    assert not re.search(r"\{\{|\{%|\{#", path.read_text())


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.name.endswith((".py", ".py.jinja"))], ids=relative
)
def test_python_has_no_conditions(path: Path) -> None:
    text = path.read_text()
    if INCLUDE.fullmatch(text):
        return
    assert not CONTROL.search(text)
    assert "{#" not in text
    if not path.is_relative_to(SOURCE):  # a test imports the package by its name
        assert set(SUBSTITUTION.findall(text)) <= {"package_name"}
    elif module_of(path) not in GENERATED:
        assert not SUBSTITUTION.search(text)


def test_generated_modules_are_no_others() -> None:
    found = {module_of(p) for p in SOURCES if p.is_relative_to(SOURCE)}

    assert found >= GENERATED


def module_of(path: Path) -> str:
    return str(path.relative_to(SOURCE)).removesuffix(".jinja")


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if not p.name.endswith((".py", ".py.jinja"))],
    ids=relative,
)
def test_conditions_are_few_flat_and_alone_on_their_line(path: Path) -> None:
    is_rendered = path.suffix == ".jinja" or "variants" in path.parts
    text = RAW.sub("", CLAUSE.sub("", path.read_text())) if is_rendered else ""
    declares = path.name.removesuffix(".jinja").endswith(DECLARATIVE)
    if INCLUDE.fullmatch(text):
        return
    tags = [line for line in text.splitlines() if CONTROL.search(line)]
    depth = 0
    for line in tags:
        if ASSIGNMENT.fullmatch(line):
            continue
        assert CONDITION.fullmatch(line) or INCLUDE.fullmatch(f"{line}\n"), line
        depth += line.count("{% if") - line.count("{% endif")
        assert 0 <= depth <= (3 if declares else 1)
    assert len([line for line in tags if CONDITION.fullmatch(line)]) <= (
        48 if declares else 8
    )


def table(name: str) -> dict[str, Any]:
    text = (ROOT / "hooks" / f"{name}.yml").read_text()
    rows: dict[str, Any] = yaml.safe_load(text)[name]["default"]
    return rows


def test_drivers_have_a_row_for_each_choice() -> None:
    assert set(config()["driver"]["choices"].values()) == table("drivers").keys()  # type: ignore[index]


def test_runtimes_name_their_files() -> None:
    shared = {"bootstrap.sql", "monitoring", "pgbouncer.ini"}
    files = [file for row in table("runtimes").values() for file in row["deploy"]]
    found = (ROOT / "template" / "deploy").iterdir()

    assert {*files, *shared} == {path.name.removesuffix(".jinja") for path in found}
    assert len(files) == len(set(files))


def test_vendors_of_runtimes_have_clouds() -> None:
    """A vendor that is spelled in two ways would be far away from itself."""
    vendors = {row["vendor"] for row in table("runtimes").values()}

    assert vendors <= {row["vendor"] for row in table("clouds").values()}


# Of a row: what it has in either file, without the prefix in front of `imports`.
KEYS = {
    "db/features.py": (
        *("db_imports", "db_settings", "hooks", "checks", "router", "around_router"),
    ),
    "features.py": (
        "imports",
        "settings",
        "middleware",
        "inner_middleware",
        "observers",
        "routers",
        "carried",
        "configure",
    ),
}


def features() -> list[tuple[str, str, list[str], set[str]]]:
    """For each file and row: its module, its name, its imports, the names it uses."""
    found = []
    for module, (imports, *keys) in KEYS.items():
        for name, row in table("features").items():
            used = {
                re.split(r"[.(]", each)[0]
                for key in keys
                for each in (
                    [row.get(key)] if key.endswith("router") else row.get(key, [])
                )
                if each
            }
            if module == "features.py" and name == "with_celery":
                used.add("configure")  # written where `carried` is
            single = [
                f"{source} import {each}"
                for source, names in (s.split(" import ") for s in row.get(imports, []))
                for each in names.split(", ")
            ]
            found.append((module, name, single, used))
    return found


def test_features_import_what_is_there() -> None:
    for module, name, imports, _ in features():
        for statement in imports:
            path, imported, _ = parsed_import(statement)
            for source in sources_of(module, path):
                assert imported in names_in(source), f"{name}: {statement}, {source}"


def test_features_use_what_they_import() -> None:
    for module, name, imports, used in features():
        known = {
            alias or imported
            for _, imported, alias in map(parsed_import, imports)
            if alias != imported  # it is for others
        }
        always = {"Check", "Hook", "Observer"}  # annotations
        assert known - always == used, f"{name} in {module}"


def test_features_are_chosen_by_facts() -> None:
    text = (ROOT / "hooks" / "features.jinja").read_text()
    chosen = set(
        re.findall(r'^  "(\w+)": ', text.partition("%}\n{% set rows")[0], re.MULTILINE)
    )

    assert chosen == table("features").keys()
    for key in set().union(*table("features").values()):
        assert f'"{key}"' in text, key


def parsed_import(statement: str) -> tuple[str, str, str | None]:
    found = IMPORT.fullmatch(statement)
    assert found, statement
    return found[1], found[2], found[3]


def sources_of(module: str, path: str) -> list[Path]:
    """The file that a relative import in the module names, or all of its variants."""
    folder = (SOURCE / module).parent
    place = folder.joinpath(*path.lstrip(".").split("."))
    if place.is_dir():
        place = place / "__init__"
    candidates = [place.with_name(f"{place.name}{end}") for end in (".py", ".py.jinja")]
    (file,) = [each for each in candidates if each.exists()]
    included = re.match(r'\{% include "(variants/[a-z_]+)/', file.read_text())
    return sorted((ROOT / included[1]).glob("*.py")) if included else [file]


def names_in(source: Path) -> set[str]:
    """What a module defines, and the modules beside it if it is a package."""
    found = {path.name.split(".")[0] for path in source.parent.glob("*.py*")}
    names = found if source.stem == "__init__" else set()
    for node in ast.parse(source.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {each.id for each in targets if isinstance(each, ast.Name)}
    return names
