"""The doctor looks at the database of these tests, and at one that is not there."""

import os
import subprocess
import sys
from pathlib import Path

from largest.settings import Settings


def doctor(**variables: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-m", "largest.db.doctor"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()


def test_doctor_has_a_line_for_each_look(settings: Settings) -> None:
    code, lines = doctor()

    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
    assert code == any(line.startswith("fail") for line in lines)
    assert lines[-1].startswith("ok    migrations  at ")


def test_doctor_tells_in_one_line_why_there_is_no_database(
    unreachable: Settings,
) -> None:
    url = unreachable.sqlalchemy_url.render_as_string(hide_password=False)
    code, lines = doctor(DATABASE_URL=url)

    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("fail  ")
