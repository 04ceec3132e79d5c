"""Releases the template: tests the updates, tags, and records version and commit.

`make release VERSION=1.2.3`. The record in tests/update/releases.txt is a commit of its
own, after the tag: the tests make the tags of their clone from it.
"""

import argparse
import re
import subprocess
import sys

from tests.support.rendering import RELEASES, ROOT, git, releases

UPDATE_TESTS = "tests/update/test_update.py"
GOLDEN_TESTS = "tests/rendering/test_golden.py"
VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", nargs="?", help="as in VERSION=1.2.3 (PEP 440)")
    version = parser.parse_args().version
    if refusal := refuse(version):
        sys.exit(refusal)
    tests = ["pytest", "--quiet", UPDATE_TESTS, GOLDEN_TESTS]
    # The first release has none before it to be updated from.
    if not releases():
        tests += ["--deselect", f"{UPDATE_TESTS}::test_every_release_can_be_updated"]
    if subprocess.run([sys.executable, "-m", *tests], cwd=ROOT, check=False).returncode:
        sys.exit(f"{version} is not released: the updates do not pass.")
    commit = git(ROOT, "rev-parse", "HEAD").strip()
    git(ROOT, "tag", "--annotate", version, "--message", version)
    with RELEASES.open("a") as record:
        record.write(f"{version} {commit}\n")
    git(ROOT, "add", str(RELEASES))
    git(ROOT, "commit", "--message", f"Record {version}")
    print(f"{version} is tagged and recorded. Next: git push --follow-tags")


def refuse(version: str | None) -> str | None:
    if not version or not VERSION.fullmatch(version):
        return "Name a version: make release VERSION=1.2.3 (or 1.2.3rc1)."
    if version in {*dict(releases()), *git(ROOT, "tag", "--list").split()}:
        return f"{version} is released already: choose a higher version."
    if f'\nversion = "{version}"\n' not in (ROOT / "pyproject.toml").read_text():
        return f"pyproject.toml names another version: write {version} there."
    if git(ROOT, "status", "--porcelain"):
        return "There are changes that are not committed: commit or stash them first."
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if f"\n## {version} " not in changelog:
        return f"CHANGELOG.md has no section for {version}: write what changes."
    return None


if __name__ == "__main__":
    main()
