"""The handler of the function that migrates the database to the newest revision."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from start import read_secret


def handler(event: Any, context: Any) -> None:
    read_secret()
    config = Config(toml_file=Path(__file__).with_name("pyproject.toml"))
    command.upgrade(config, "head")
