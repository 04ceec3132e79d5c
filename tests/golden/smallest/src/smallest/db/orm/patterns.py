"""What the SQL of a read has, for the guard: SQLite."""

# Whether SQL lacks the FOR UPDATE of its statement: here every writer has a lock.
OMITS_LOCKS = True
# What is no SQL: names and texts in quotes, comments. And the function that keeps
# state, though a SELECT calls it.
QUOTED = (
    r""""(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^]]*\]|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/"""
)
STATEFUL = r"\bload_extension\s*\("
