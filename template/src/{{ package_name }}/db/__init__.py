"""The database: what a service uses of this folder.

How to read and write is in database.py; what a setting means, in config/settings.py.
"""

from .base import Base
from .bulk import Csv, Export, batches, bulk_insert, csv_lines, export
from .database import Database, Read, Snapshot, Write
from .open import open_database
from .orm.keyset import Cursor, Keyset
from .orm.reads import ReadSession
from .orm.writes import WriteSession

__all__ = [
    "Base",
    "Csv",
    "Cursor",
    "Database",
    "Export",
    "Keyset",
    "Read",
    "ReadSession",
    "Snapshot",
    "Write",
    "WriteSession",
    "batches",
    "bulk_insert",
    "csv_lines",
    "export",
    "open_database",
]
