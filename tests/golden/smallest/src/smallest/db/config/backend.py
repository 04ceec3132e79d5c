"""Database system and driver of this service."""

DIALECT = "sqlite"
DRIVER = "aiosqlite"
