"""Migrations lead to what the models declare, and back."""

from contextlib import suppress
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def test_models_and_migrations_agree(alembic: Config, settings: Any) -> None:
    command.check(alembic)  # raises when autogenerate would find something to do


def test_there_is_one_head(alembic: Config) -> None:
    assert len(ScriptDirectory.from_config(alembic).get_heads()) <= 1


def test_up_and_down_and_up_again(
    alembic: Config,
    settings: Any,
    scratch: Any,
    point_to: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scratch() as url:
        point_to(monkeypatch, url)
        command.upgrade(alembic, "head")
        with suppress(NotImplementedError):  # raised where there is no way back
            command.downgrade(alembic, "base")
        command.upgrade(alembic, "head")
        command.check(alembic)


def test_sql_can_be_printed_without_a_database(
    alembic: Config,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    # Not upgrade: a migration that reads rows has no SQL to print.
    command.stamp(alembic, "head", sql=True)

    printed = "alembic_version" in capsys.readouterr().out
    assert printed == bool(ScriptDirectory.from_config(alembic).get_heads())
