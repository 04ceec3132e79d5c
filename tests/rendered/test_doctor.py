"""The doctor checks the database of these tests, and one that cannot be reached."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from database import UNREACHABLE
from shop.settings import Settings
from sqlalchemy import make_url

COMMAND = [sys.executable, "-m", "shop.db.doctor"]


def doctor(*arguments: str, **variables: str) -> tuple[int, list[str]]:
    done = subprocess.run(
        [*COMMAND, *arguments],
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


def test_doctor_prints_one_object_for_machines(settings: Settings) -> None:
    code, lines = doctor()
    same, output = doctor("--json")
    report = json.loads("\n".join(output))

    assert same == code
    assert report["ok"] is (code == 0)
    assert lines == [
        f"{each['level']:4}  {each['check']:10}  {each['message']}"
        for each in report["checks"]
    ]


def test_wrong_setting_is_an_object_for_machines_as_well(settings: Settings) -> None:
    code, lines = doctor(LOG_LEVEL="LOUD")
    same, output = doctor("--json", LOG_LEVEL="LOUD")
    report = json.loads("\n".join(output))

    assert (code, same, len(lines)) == (1, 1, 1)
    assert lines[0].startswith("LOG_LEVEL")
    result = {"check": "settings", "level": "fail", "message": lines[0]}
    assert report == {"ok": False, "checks": [result]}


def test_doctor_rejects_another_argument(settings: Settings) -> None:
    code, lines = doctor("--jason")

    assert code == 2
    assert lines[-1].endswith("error: unrecognized arguments: --jason")


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["", "NO_COLOR"])
def test_doctor_is_in_color_on_a_terminal(
    settings: Settings, variables: dict[str, str]
) -> None:
    terminal, end = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "", **variables}
    folder = Path(__file__).parents[1]
    with subprocess.Popen(COMMAND, cwd=folder, env=environment, stdout=end):
        os.close(end)
        output = b""
        try:
            while read := os.read(terminal, 10_000):
                output += read
        except OSError:  # the other end is closed
            pass
    os.close(terminal)

    assert b"migrations" in output
    assert (b"\x1b[32mok  \x1b[0m  " in output) is (not variables)
