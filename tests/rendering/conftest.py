"""Every rendering, in one folder, and what their files contain."""

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import Once
from tests.support.combinations import cover, name, traced
from tests.support.rendering import Answers, fast, files, render


class Content(NamedTuple):
    """What a file contains in some renderings."""

    path: str
    text: str
    file: Path  # in one of them
    renderings: list[Path]

    @property
    def module(self) -> str:
        """`db/open.py`: the path of a module, below its package."""
        return "/".join(Path(self.path).parts[2:])

    @property
    def is_source(self) -> bool:
        return self.path.startswith("src/") and self.path.endswith(".py")


@pytest.fixture(scope="session")
def rows(accepted: list[Answers]) -> list[Answers]:
    """All of them; with Celery or tracing, which add the same to each, each pair."""
    with_celery = [row for row in accepted if row.get("with_celery")]
    others = [row for row in accepted if not row.get("with_celery")]
    return others + cover(with_celery, 2) + traced(accepted)


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


@pytest.fixture(scope="session")
def contents(renderings: dict[Path, Answers]) -> list[Content]:
    """Of each path, every text that it has: each is checked once."""
    found: dict[tuple[str, bytes], Content] = {}
    for project in renderings:
        for path, content in files(project).items():
            if path.endswith(".png"):
                continue
            new = Content(path, content.decode(), project / path, [])
            found.setdefault((path, content), new).renderings.append(project)
    return list(found.values())


@pytest.fixture(scope="session")
def modules(
    renderings: dict[Path, Answers], contents: list[Content]
) -> dict[Path, list[Content]]:
    """The modules of each rendering."""
    found: dict[Path, list[Content]] = {project: [] for project in renderings}
    for content in contents:
        if content.is_source:
            for project in content.renderings:
                found[project].append(content)
    return found
