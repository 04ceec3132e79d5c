"""The connections that one process may open, with the arithmetic behind them."""

# Server: 90 % of (100 max_connections - 3 reserved) = 87
# Usable: 87 - 5 for people and tools - 1 for a migration = 81
# Peak: 2 instances, 4 while a rollout replaces them, x 2 workers = 8 processes
# Each: 81 / 8 = 10, at most 20; the whole fleet opens 80 of 81
WORKERS = 2
FLEET_PROCESSES = 8
POOL_SIZE = 10
# None: an overflow connection is closed on return, and opened by the next burst.
MAX_OVERFLOW = 0
