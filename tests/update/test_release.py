"""A release is refused with a sentence, or tested, tagged and recorded."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.rendering import git, snapshot

GOLDEN_TESTS = Path("tests", "rendering", "test_golden.py")
UPDATE_TESTS = Path("tests", "update", "test_update.py")
RECORD = Path("tests", "update", "releases.txt")
PASSES = "def test_update() -> None:\n    pass\n"
FAILS = "def test_update() -> None:\n    raise AssertionError\n"


@pytest.fixture
def repository(tmp_path: Path, isolated: None) -> Path:  # noqa: ARG001
    """Clone this repository, with a version to be released and tests that end soon."""
    clone = snapshot(tmp_path / "clone")
    (clone / GOLDEN_TESTS).write_text(PASSES.replace("update", "golden"))
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "1', 'version = "101'))
    return prepare(clone, PASSES)


def prepare(repository: Path, update_tests: str) -> Path:
    (repository / UPDATE_TESTS).write_text(update_tests)
    version = next_version(repository)
    (repository / "CHANGELOG.md").write_text(f"# Changelog\n\n## {version} (today)\n")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Prepare")
    return repository


def next_version(repository: Path) -> str:
    lines = (repository / "pyproject.toml").read_text().splitlines()
    return next(line.split('"')[1] for line in lines if line.startswith("version"))


def make_release(repository: Path, *version: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools.release", *version],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )


def test_release_is_tagged_and_recorded(repository: Path) -> None:
    version, commit = next_version(repository), git(repository, "rev-parse", "HEAD")
    done = make_release(repository, version)

    assert done.returncode == 0, done.stdout + done.stderr
    assert git(repository, "rev-parse", f"{version}^{{commit}}") == commit
    recorded = (repository / RECORD).read_text().splitlines()
    assert recorded[-1] == f"{version} {commit.strip()}"
    assert git(repository, "status", "--porcelain") == ""
    assert "is released already" in make_release(repository, version).stderr


def test_release_is_refused_while_an_update_fails(repository: Path) -> None:
    prepare(repository, FAILS)
    version = next_version(repository)
    done = make_release(repository, version)

    assert done.returncode == 1
    assert done.stderr == f"{version} is not released: the updates do not pass.\n"
    assert version not in git(repository, "tag", "--list").split()


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ([], "Name a version: make release VERSION=1.2.3"),
        (["v1.2.3"], "Name a version: make release VERSION=1.2.3"),
        (["1.2.3"], "pyproject.toml names another version: write 1.2.3 there."),
    ],
)
def test_wrong_version_is_refused(
    repository: Path, version: list[str], sentence: str
) -> None:
    done = make_release(repository, *version)

    assert done.returncode == 1
    assert done.stderr.startswith(sentence)


def test_release_wants_a_changelog_and_a_clean_tree(repository: Path) -> None:
    version = next_version(repository)
    (repository / "CHANGELOG.md").write_text("# Changelog\n")
    assert "not committed" in make_release(repository, version).stderr

    git(repository, "commit", "--quiet", "--all", "--message", "Forget the changelog")
    assert "has no section" in make_release(repository, version).stderr
