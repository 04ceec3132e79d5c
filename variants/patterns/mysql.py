"""What the SQL of a read has, for the guard: MySQL and MariaDB."""

# Whether SQL lacks the FOR UPDATE of its statement.
OMITS_LOCKS = False
# What is no SQL: names and texts in quotes, comments; what is in /*! */ is executed.
# And what locks, writes or keeps state, though it is a part of a SELECT.
QUOTED = (
    r"""`(?:[^`]|``)*`|'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*"|/\*(?![!M]).*?\*/"""
    r"""|--\s[^\n]*|\#[^\n]*"""
)
STATEFUL = (
    r"/\*|:=|\bLOCK\s+IN\s+SHARE\s+MODE\b|\bNEXT\s+VALUE\s+FOR\b"
    r"|\b(GET_LOCK|RELEASE_(ALL_)?LOCKS?|LOAD_FILE|NEXTVAL|SETVAL"
    r"|service_(get|release)\w*_locks?)\s*\(|\bLAST_INSERT_ID\s*\((?=\s*[^\s)])"
)
