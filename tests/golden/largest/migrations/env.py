"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging
from pathlib import Path

from alembic import context

from largest import models  # noqa: F401  (the tables register themselves)
from largest.db import Base
from largest.db.migrations import run_migrations
from largest.web.logs import configure_logging

# The tests have a log of their own, and `--sql` is to print nothing but SQL.
if not (logging.root.handlers or context.is_offline_mode()):
    configure_logging("INFO")

run_migrations(Base.metadata, Path(__file__).with_name("options.py"))
