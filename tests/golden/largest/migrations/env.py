"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging

from largest import models  # noqa: F401  (the tables register themselves)
from largest.db import Base
from largest.db.migrations import run_migrations
from largest.web.logs import configure_logging

if not logging.root.handlers:  # the tests have their own
    configure_logging("INFO")

run_migrations(Base.metadata)
