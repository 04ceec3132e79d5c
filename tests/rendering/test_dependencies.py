"""All renderings: each import is declared, each dependency has a wheel."""

import json
import subprocess
import tomllib
from pathlib import Path

import pytest
from deptry.cli import cli as deptry

from tests.support.rendering import ROOT, Answers
from tools.reserved_names import (
    BESIDE,
    DEPENDENCIES,
    as_package,
    beside,
    direct,
    reserved,
)

# Of distributions that are not named as what they are imported by.
MODULES = (
    "google-auth=google,azure-identity=azure,psycopg=psycopg,"
    "opentelemetry-api=opentelemetry"
)


@pytest.fixture(scope="session")
def declaring(renderings: dict[Path, Answers]) -> list[Path]:
    """One rendering for each list of dependencies."""
    found: dict[str, Path] = {}
    for project in renderings:
        table = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        found.setdefault(str(table["dependencies"]), project)
    return [*found.values()]


def test_each_import_is_declared(declaring: list[Path], tmp_path: Path) -> None:
    assert len(declaring) > 20
    for project in declaring:
        (package,) = project.glob("src/*")
        report = tmp_path / "report.json"
        # DEP002: what a process is started by, and what a library loads by its name.
        arguments = (
            *(str(package), f"--known-first-party={package.name}"),
            *("--ignore=DEP002", f"--config={project / 'pyproject.toml'}"),
            *(f"--json-output={report}", f"--package-module-name-map={MODULES}"),
        )
        # Here, for the start of the command takes a second.
        with pytest.raises(SystemExit):
            deptry(arguments)
        found = {
            f"{issue['module']}: {issue['error']['message']}"
            for issue in json.loads(report.read_text())
        }
        report.unlink()
        assert found == set(), project


def test_no_package_has_the_name_of_a_requirement(
    renderings: dict[Path, Answers],
) -> None:
    """What those require in turn is of the day: `make lock` adds it."""
    needed = {as_package(each) for project in renderings for each in direct(project)}

    assert {"fastapi", "uvicorn_worker", "boto3", "pytest", "uv_build"} <= needed
    assert needed <= reserved()[DEPENDENCIES]


def test_no_package_has_the_name_of_a_module_beside_it() -> None:
    assert reserved()[BESIDE] == beside(ROOT / "template")


@pytest.mark.boot
def test_each_dependency_has_a_wheel_for_the_newest_python(
    declaring: list[Path], tmp_path: Path
) -> None:
    """All of them at once: a package that one rendering needs is among them."""
    names = {
        name
        for project in declaring
        for name in tomllib.loads((project / "pyproject.toml").read_text())["project"][
            "dependencies"
        ]
    }
    requirements = tmp_path / "requirements.in"
    requirements.write_text("\n".join(sorted(names)))
    done = subprocess.run(
        [
            *("uv", "pip", "compile", "--quiet", "--python-version=3.14"),
            *("--only-binary=:all:", requirements),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
