"""The doctor checks the database of these tests, and one that cannot be reached."""

import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from database import UNREACHABLE
from shop.db.doctor.__main__ import main
from shop.settings import Settings
from sqlalchemy import make_url

Doctor = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def doctor(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Doctor:
    """Its exit code and lines, by its arguments and the variables that it has beside.

    In the process of the tests: tests of the template start its command.
    """

    def doctor(*arguments: str, **variables: str) -> tuple[int, list[str]]:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["doctor", *arguments])
            for name, value in variables.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main()
        code: Any = ended.value.code
        lines = "".join(capsys.readouterr()).splitlines()
        # As the interpreter does: a sentence is printed.
        return (1, [*lines, code]) if isinstance(code, str) else (int(code), lines)

    return doctor


def test_doctor_prints_a_line_for_each_check(doctor: Doctor) -> None:
    code, lines = doctor()

    assert {line.split()[0] for line in lines} <= {"ok", "warn", "fail"}
    assert code == any(line.startswith("fail") for line in lines)
    assert lines[-1].startswith("ok    migrations  at ")


def test_doctor_says_in_one_line_why_there_is_no_database(doctor: Doctor) -> None:
    url = make_url(os.environ["DATABASE_URL"])
    if path := UNREACHABLE.get("database_path"):  # of SQLite
        url = url.set(database=str(path))
    else:
        url = url.set(port=UNREACHABLE["database_port"])
    code, lines = doctor(DATABASE_URL=url.render_as_string(hide_password=False))

    assert (code, len(lines)) == (1, 1), lines
    assert lines[0].startswith("fail  ")


def test_doctor_prints_one_object_for_machines(doctor: Doctor) -> None:
    code, lines = doctor()
    same, output = doctor("--json")
    report = json.loads("\n".join(output))

    assert same == code
    assert report["ok"] is (code == 0)
    assert lines == [
        f"{each['level']:4}  {each['check']:10}  {each['message']}"
        for each in report["checks"]
    ]


def test_wrong_setting_is_an_object_for_machines_as_well(doctor: Doctor) -> None:
    code, lines = doctor(LOG_LEVEL="LOUD")
    same, output = doctor("--json", LOG_LEVEL="LOUD")
    report = json.loads("\n".join(output))

    assert (code, same, len(lines)) == (1, 1, 1)
    assert lines[0].startswith("LOG_LEVEL")
    result = {"check": "settings", "level": "fail", "message": lines[0]}
    assert report == {"ok": False, "checks": [result]}


def test_doctor_rejects_another_argument(doctor: Doctor) -> None:
    code, lines = doctor("--jason")

    assert code == 2
    assert lines[-1].endswith("error: unrecognized arguments: --jason")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", ["", "1"], ids=["", "NO_COLOR"])
def test_doctor_is_in_color_on_a_terminal(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, no_color: str
) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", terminal)
        doctor(NO_COLOR=no_color)
    output = terminal.getvalue()

    assert "migrations" in output
    assert ("\x1b[32mok  \x1b[0m  " in output) is (not no_color)
