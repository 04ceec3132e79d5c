"""Database system and driver of this service."""

DIALECT = "mysql"
DRIVER = "aiomysql"
SCHEMES = ("mysql", "mariadb")
DEFAULT_PORT = 3306
# InnoDB finds a deadlock without a delay.
DEADLOCK_TIMEOUT_SECONDS = 0
