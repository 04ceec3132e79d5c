"""The connections that one process may open, with the arithmetic behind them."""

# Server: 90 % of (100 max_connections - 8 reserved) = 82
# Usable: 82 - 5 for people and tools - 1 for a migration = 76
# Pooler: PgBouncer opens 50 of 76 at most, for 10000 clients at most
# Peak: 2 pods, 4 while a rollout replaces them, x 2 workers = 8 processes
# Each: 10000 / 8 = 1250: a look, and 2 pools of (1250 - 1) / 2 = 624, at most 20
# If one server is primary and replica: 8 x (2 x 20 + 1) = 328 of 10000
WORKERS = 2
FLEET_PROCESSES = 8
POOLER_CLIENTS = 10000
POOLER_CONNECTIONS = 50
POOL_SIZE = 20
# None: an overflow connection is closed on return, and opened by the next burst.
MAX_OVERFLOW = 0
