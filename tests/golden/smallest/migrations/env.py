"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging

from smallest import models  # noqa: F401  (the tables register themselves)
from smallest.db.base import Base
from smallest.db.migrate import run_migrations
from smallest.logs import configure_logging
from smallest.settings import Settings

if not logging.root.handlers:  # the tests have their own
    configure_logging("INFO")

run_migrations(Base.metadata, Settings)
