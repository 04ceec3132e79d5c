"""The doctor checks the database of these tests, and one that cannot be reached."""

import os
import subprocess
import sys
from pathlib import Path

from database import UNREACHABLE
from shop.settings import Settings
from sqlalchemy import make_url


def doctor(**variables: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "shop.db.doctor"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines()


def test_doctor_prints_a_line_for_each_check(settings: Settings) -> None:
    code, lines = doctor()

    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
    assert code == any(line.startswith("fail") for line in lines)
    assert lines[-1].startswith("ok    migrations  at ")


def test_doctor_says_in_one_line_why_there_is_no_database(settings: Settings) -> None:
    url = make_url(os.environ["DATABASE_URL"])
    if path := UNREACHABLE.get("database_path"):  # of SQLite
        url = url.set(database=str(path))
    else:
        url = url.set(port=UNREACHABLE["database_port"])
    code, lines = doctor(DATABASE_URL=url.render_as_string(hide_password=False))

    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("fail  ")
