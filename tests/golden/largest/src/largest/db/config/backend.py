"""Database system and driver of this service."""

DIALECT = "postgresql"
DRIVER = "asyncpg"
SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432
# Of a URL: the folder of the server's socket on this machine.
SOCKET_PARAMETER = "host"
# Seconds until the server searches for a deadlock (deadlock_timeout). A lock timeout
# below it ends the wait first: a deadlock would never be reported as one.
DEADLOCK_TIMEOUT_SECONDS = 1
