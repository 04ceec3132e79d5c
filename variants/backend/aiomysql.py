"""Database system and driver of this service."""

DIALECT = "mysql"
DRIVER = "aiomysql"
SCHEMES = ("mysql", "mariadb")
DEFAULT_PORT = 3306
# Of a URL: the path of the server's socket on this machine.
SOCKET_PARAMETER = "unix_socket"
# InnoDB finds a deadlock without a delay.
DEADLOCK_TIMEOUT_SECONDS = 0
