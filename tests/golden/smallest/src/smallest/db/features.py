"""The add-ons of this folder, generated from the answers by `make update`."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from .config.settings import ConnectionSettings
from .doctor.report import Check
from .engine.create import Hook
from .primary import open_primary_only


class DatabaseSettings(ConnectionSettings):
    """All DATABASE_* variables, and what the add-ons do."""

    hooks: ClassVar[Sequence[Hook]] = []
    checks: ClassVar[Mapping[str, Check]] = {}
    open_router = staticmethod(open_primary_only)
