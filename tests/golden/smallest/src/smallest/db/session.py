"""For services of release 1.0.0rc1: these names are in `db` now."""

from .database import Database, Read, Write
from .open import open_database
from .orm.reads import ReadSession
from .orm.writes import WriteSession

__all__ = ["Database", "Read", "ReadSession", "Write", "WriteSession", "open_database"]
