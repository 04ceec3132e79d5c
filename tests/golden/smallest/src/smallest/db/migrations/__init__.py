"""Migrations: run by migrations/env.py, checked by the doctor."""

from .check import check_migrations
from .run import run_migrations

__all__ = ["check_migrations", "run_migrations"]
