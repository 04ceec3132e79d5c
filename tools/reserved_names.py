"""Writes the names that no package may have, from what a service installs and contains.

`make lock` runs it. A name that was written once stays: a library of another platform,
or one that a later release drops, is refused as before.
"""

import json
import os
import re
import subprocess
import tempfile
import textwrap
import tomllib
from collections.abc import Iterable
from pathlib import Path

import yaml

from tests.support.combinations import all_answers, cover, traced
from tests.support.rendering import ROOT, fast, isolate, render, snapshot

FILE = ROOT / "hooks" / "reserved_names.yml"
DEPENDENCIES = "a dependency of the service"
BESIDE = "a folder or a module beside it"
# Folders that some distributions install by mistake, and that nothing imports.
STRAY = {"docs", "examples", "images", "tests"}
# The oldest Python of a service has the most dependencies.
OLDEST = "3.11"
MODULES = (
    "import importlib.metadata, json;"
    "print(json.dumps([*importlib.metadata.packages_distributions()]))"
)


def reserved() -> dict[str, set[str]]:
    """The names by their owner, as they are written."""
    table = yaml.safe_load(FILE.read_text())["reserved_names"]["default"]
    return {owner: set(names) for owner, names in table.items()}


def beside(template: Path) -> set[str]:
    """Folders of a service, and modules of the folders that are on a path of Python."""
    folders = {path.name for path in template.iterdir() if path.is_dir()}
    modules = {
        path.name.partition(".")[0]
        for folder in ("tests", "deploy")
        for path in (template / folder).glob("*.py*")
    }
    return {name for name in folders | modules if can_be_package(name)}


def direct(project: Path) -> set[str]:
    """The requirements that pyproject.toml of a rendering names."""
    table = tomllib.loads((project / "pyproject.toml").read_text())
    groups = [*table["dependency-groups"].values(), table["build-system"]["requires"]]
    return {
        *table["project"]["dependencies"],
        *(name for each in groups for name in each),
    }


def as_package(requirement: str) -> str:
    """`uvicorn-worker>=0.4` as `uvicorn_worker`."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "_", name[0]).lower()


def can_be_package(name: str) -> bool:
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None


def installed(requirements: Iterable[str], folder: Path) -> set[str]:
    """What uv locks for any platform, and the modules that it installs on this one."""
    source, lock = folder / "requirements.in", folder / "requirements.txt"
    source.write_text("\n".join(sorted(requirements)))
    uv("venv", str(folder / "venv"))
    python = folder / "venv" / "bin" / "python"
    for command in (
        f"compile --universal --python-version {OLDEST} --no-header {source} -o {lock}",
        f"install --python {python} --requirements {lock}",
    ):
        uv("pip", *command.split())
    done = subprocess.run(
        [python, "-c", MODULES], check=True, capture_output=True, text=True
    )
    lines = lock.read_text().splitlines()
    projects = {as_package(line) for line in lines if line[0].isalpha()}
    modules = {name for name in json.loads(done.stdout) if can_be_package(name)}
    return projects | modules - STRAY


def uv(*arguments: str) -> None:
    subprocess.run(["uv", *arguments, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def write(names: dict[str, set[str]]) -> None:
    """Write two lists anew; Python's own are left as they are."""
    text = FILE.read_text()
    for owner in (DEPENDENCIES, BESIDE):
        lines = textwrap.fill(
            ", ".join(sorted(names[owner])),
            width=88,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
            break_on_hyphens=False,
        )
        text, count = re.subn(
            rf"(    {owner}: \[\n).*?(\n    \])",
            rf"\g<1>{lines}\2",
            text,
            flags=re.DOTALL,
        )
        assert count == 1, owner
    FILE.write_text(text)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.update(isolate(folder / "home"))
        template = snapshot(folder / "template")
        accepted = all_answers(template)
        rows = cover(accepted, 2) + traced(accepted)[:1]
        requirements: set[str] = set()
        with fast(template, folder / "source") as source:
            for number, answers in enumerate(rows):
                project = render(source, folder / str(number), answers)
                requirements |= direct(project)
        names = reserved()
        names[DEPENDENCIES] |= installed(requirements, folder)
        names[BESIDE] = beside(template / "template")
    write(names)


if __name__ == "__main__":
    main()
