"""What `alembic` runs: the tables of the code, and the way to the database."""

from smallest import models  # noqa: F401  (the tables register themselves)
from smallest.db.base import Base
from smallest.db.migrate import run_migrations
from smallest.settings import Settings

run_migrations(Base.metadata, Settings)
