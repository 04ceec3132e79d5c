"""What the SQL of a read has, for the guard: PostgreSQL."""

# Whether SQL lacks the FOR UPDATE of its statement.
OMITS_LOCKS = False
# What is no SQL: names and texts in quotes, comments. And the functions that lock,
# write or keep state, though a SELECT calls them.
QUOTED = (
    r""""(?:[^"]|"")*"|\be'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'"""
    r"""|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|--[^\n]*|/\*.*?\*/"""
)
STATEFUL = (
    r"\b(set_config|setseed|set_limit|nextval|setval|dblink\w*|lo_\w+|pg_notify"
    r"|pg_(try_)?advisory\w*|pg_(terminate|cancel)_backend|pg_stat_reset\w*"
    r"|pg_(create|drop|copy|replication|logical|wal|backup|file|switch)_\w+"
    r"|pg_(reload_conf|rotate_logfile|promote|import_system_collations))\s*\("
)
