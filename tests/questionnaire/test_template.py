"""Rules for the sources of the template, which no rendering could show."""

import re
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
    if path.is_file() and not {"__pycache__", ".ruff_cache"} & set(path.parts)
]
CONTROL = re.compile(r"\{%.*?%\}", re.DOTALL)
INCLUDE = re.compile(r'\{% include "variants/[a-z_]+/" ~ [a-z_]+ ~ "\.[a-z]+" %\}\n')
CONDITION = re.compile(r" *\{% (if( not)? [a-z_]+|else|endif) %\}")
# What stands alone on its line without a branch: a number with a name.
ASSIGNMENT = re.compile(r"\{% set [a-z_]+ = [^%]+ %\}")
# What a sentence says in some renderings only.
CLAUSE = re.compile(r"\{% if( not)? [a-z_]+ %\}((?!\{%).)+\{% endif %\}")
SUBSTITUTION = re.compile(r"\{\{ (.*?) \}\}")
NEEDS_TRUST = {"_tasks", "_jinja_extensions", "_migrations", "_external_data"}


def config() -> dict[str, object]:
    loaded: dict[str, object] = load_template_config(ROOT / "copier.yml")
    return loaded


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_a_copy_needs_no_trust() -> None:
    assert not NEEDS_TRUST & config().keys()


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
    if path.name != "budget.py.jinja":
        assert set(SUBSTITUTION.findall(text)) <= {"package_name"}


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if not p.name.endswith((".py", ".py.jinja"))],
    ids=relative,
)
def test_conditions_are_few_flat_and_alone_on_their_line(path: Path) -> None:
    is_rendered = path.suffix == ".jinja" or "variants" in path.parts
    text = CLAUSE.sub("", path.read_text()) if is_rendered else ""
    if INCLUDE.fullmatch(text):
        return
    tags = [line for line in text.splitlines() if CONTROL.search(line)]
    depth = 0
    for line in tags:
        if ASSIGNMENT.fullmatch(line):
            continue
        assert CONDITION.fullmatch(line) or INCLUDE.fullmatch(f"{line}\n"), line
        depth += line.count("{% if") - line.count("{% endif")
        assert depth in (0, 1)
    assert len([line for line in tags if CONDITION.fullmatch(line)]) <= 8


def table(name: str) -> dict[str, Any]:
    text = (ROOT / "hooks" / f"{name}.yml").read_text()
    rows: dict[str, Any] = yaml.safe_load(text)[name]["default"]
    return rows


def test_drivers_have_a_row_for_each_choice() -> None:
    assert set(config()["driver"]["choices"].values()) == table("drivers").keys()  # type: ignore[index]


def test_runtimes_name_their_files() -> None:
    shared = {"bootstrap.sql", "pgbouncer.ini"}
    files = [file for row in table("runtimes").values() for file in row["deploy"]]
    found = (ROOT / "template" / "deploy").iterdir()

    assert {*files, *shared} == {path.name.removesuffix(".jinja") for path in found}
    assert len(files) == len(set(files))


def test_vendors_of_runtimes_have_clouds() -> None:
    """A vendor that is spelled in two ways would be far away from itself."""
    vendors = {row["vendor"] for row in table("runtimes").values()}

    assert vendors <= {row["vendor"] for row in table("clouds").values()}
