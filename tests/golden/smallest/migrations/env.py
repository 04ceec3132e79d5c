"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging
from pathlib import Path

from alembic import context

from smallest import models  # noqa: F401  (the tables register themselves)
from smallest.db import Base
from smallest.db.migrations import run_migrations
from smallest.web.logs import configure_logging

# The tests have a log of their own, and `--sql` is to print nothing but SQL.
if not (logging.root.handlers or context.is_offline_mode()):
    configure_logging("INFO")

run_migrations(Base.metadata, Path(__file__).with_name("options.py"))
