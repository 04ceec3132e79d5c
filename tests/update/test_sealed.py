"""`make sealed` compares the sealed folders with the recorded release."""

from pathlib import Path

import pytest

from tests.support.rendering import NEXT, Answers
from tests.support.service import copy


@pytest.mark.boot
@pytest.mark.parametrize(
    ("answers", "folders"),
    [
        ({"driver": "aiosqlite"}, "web/, db/"),
        ({"driver": "asyncpg", "with_celery": True}, "web/, db/, worker/"),
    ],
    ids=str,
)
def test_unmodified_service_is_sealed(
    template: Path, tmp_path: Path, answers: Answers, folders: str
) -> None:
    shop = copy(template, tmp_path / "shop", answers)
    own = shop.folder / "src" / "shop" / "settings.py"
    own.write_text(f"{own.read_text()}    notes_per_page: int = 20\n")
    shop.install()
    shop.command("python", "-m", "compileall", "-q", "src")

    assert (
        shop.make("sealed") == f"{folders} are those of release {NEXT}, unmodified.\n"
    )


@pytest.mark.boot
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("web/health.py", "+HOT_FIX = True"),
        ("worker/app.py", "+HOT_FIX = True"),
        ("db/hot_fix.py", "Only in src/shop/db: hot_fix.py"),
    ],
)
def test_change_by_hand_is_named(
    template: Path, tmp_path: Path, file: str, said: str
) -> None:
    answers = {"driver": "asyncpg", "with_celery": True}
    shop = copy(template, tmp_path / "shop", answers)
    path = shop.folder / "src" / "shop" / file
    before = path.read_text() if path.exists() else ""
    path.write_text(f"{before}HOT_FIX = True\n")

    done = shop.command("make", "sealed")

    assert done.returncode == 2, done.stderr  # that of make
    assert "Error 1" in done.stderr
    assert path.name in done.stdout
    assert said in done.stdout
    assert "unmodified" not in done.stdout
