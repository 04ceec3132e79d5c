"""The engine: driver, dialect, connection pool, validation, watchdog, metrics."""

UNAWAITED = (
    "The session ends while a task executes a statement on it, so nothing is committed:"
    " await the task, or let it open a session of its own."
)


class UnfitValue(ValueError):
    """What a type of a column rejects: a sentence for the log, without the value."""
