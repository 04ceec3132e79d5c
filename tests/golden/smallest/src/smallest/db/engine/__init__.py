"""The engine: driver, dialect, connection pool, validation, watchdog, metrics."""
