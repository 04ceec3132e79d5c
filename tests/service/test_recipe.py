"""The README's first ten minutes, carried out word by word."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.rendered_tests import run_tests
from tests.support.rendering import Answers
from tests.support.service import Service

NEW = re.compile(r"`(?P<path>[^`]+)`, a new file:")
END = re.compile(r"At the end of `(?P<path>[^`]+)`:")
INSTEAD = re.compile(r"In `(?P<path>[^`]+)`, in place of `(?P<line>[^`]+)`:")
BELOW = re.compile(r"In `(?P<path>[^`]+)`, below `(?P<line>[^`]+)`:")
BLOCK = re.compile(r"^([^\n]+)\n\n```(\w+)\n(.*?)```$", re.MULTILINE | re.DOTALL)


def blocks(readme: str) -> list[tuple[str, str, str]]:
    """What stands above each block of the recipe, its language, and the block."""
    section = readme.split("\n## First ten minutes\n")[1].partition("\n## ")[0]
    found = BLOCK.findall(section.split("A resource of your own", 1)[1])
    assert len(found) == section.count("```") // 2 - 1
    return found


def edit(folder: Path, title: str, block: str) -> None:
    if place := NEW.fullmatch(title):
        path = folder / place["path"]
        assert not path.exists()
        path.write_text(block)
    elif place := END.fullmatch(title):
        path = folder / place["path"]
        path.write_text(f"{path.read_text()}\n\n{block}")
    else:
        place = INSTEAD.fullmatch(title) or BELOW.fullmatch(title)
        assert place, title
        path, line = folder / place["path"], f"{place['line']}\n"
        text = path.read_text()
        assert text.count(line) == 1, title
        kept = line if BELOW.fullmatch(title) else ""
        path.write_text(text.replace(line, kept + block))


@pytest.mark.boot
@pytest.mark.parametrize(
    "answers",
    [
        {"driver": "asyncpg", "with_celery": True},
        {"driver": "aiomysql"},
        {"driver": "aiosqlite"},
    ],
    ids=str,
)
def test_recipe_adds_a_resource(
    quickly: Callable[[Path, Answers], Path],
    install: Callable[[Service], Service],
    tmp_path: Path,
    answers: Answers,
) -> None:
    shop = install(Service(quickly(tmp_path / "shop", answers)))
    output = ""
    for title, language, block in blocks((shop.folder / "README.md").read_text()):
        if language == "python":
            edit(shop.folder, title, block)
        else:
            done = shop.command("sh", "-ec", block)
            assert done.returncode == 0, done.stdout + done.stderr
            output += done.stdout

    assert len([*shop.folder.glob("migrations/versions/*_notes.py")]) == 1
    assert "tests/test_notes.py ." in output


@pytest.mark.boot
def test_missing_setting_ends_the_tests_with_its_name(
    rendered: Callable[[Answers], Service], tmp_path: Path
) -> None:
    shop = rendered({"driver": "aiosqlite"})
    source = shop.changed(tmp_path / "src", "settings.py", "    pass", "    key: str")
    ended = run_tests(shop, "test_orders.py", PYTHONPATH=source)
    passed = run_tests(shop, "test_payments.py", PYTHONPATH=source, KEY="a")

    assert "Exit: KEY: Field required. Write it to .env" in ended.stdout
    assert ended.returncode == 1
    assert passed.returncode == 0, passed.stdout


@pytest.mark.boot
def test_failing_test_shows_the_traceback(
    rendered: Callable[[Answers], Service], tmp_path: Path
) -> None:
    shop = rendered({"driver": "aiosqlite"})
    eager = ".options(joinedload(OrderLine.order))"
    source = shop.changed(tmp_path / "src", "orders.py", eager, "")
    done = run_tests(shop, "test_orders.py", PYTHONPATH=source)

    assert done.returncode == 1
    assert "is not available due to lazy='raise'" in done.stdout
