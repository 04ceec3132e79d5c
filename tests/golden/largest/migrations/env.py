"""What `alembic` runs: the tables of the code, and the way to the database."""

from largest import models  # noqa: F401  (the tables register themselves)
from largest.db.base import Base
from largest.db.migrate import run_migrations
from largest.settings import Settings

run_migrations(Base.metadata, Settings)
