"""What `alembic` runs: the tables of the code, and the way to the database."""

import logging

from largest import models  # noqa: F401  (the tables register themselves)
from largest.db.base import Base
from largest.db.migrate import run_migrations
from largest.logs import configure_logging
from largest.settings import Settings

if not logging.root.handlers:  # the tests have their own
    configure_logging("INFO")

run_migrations(Base.metadata, Settings)
