"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging

from smallest import models  # noqa: F401  (the tables register themselves)
from smallest.db import Base
from smallest.db.migrations import run_migrations
from smallest.web.logs import configure_logging

if not logging.root.handlers:  # the tests have their own
    configure_logging("INFO")

run_migrations(Base.metadata)
