"""The connections that one process may open, with the arithmetic behind them."""

# Server: 90 % of (100 max_connections - 8 reserved) = 82
# Usable: 82 - 5 for people and tools - 1 for a migration = 76
# Pooler: PgBouncer opens 38 of 76 for each of 2 databases, for 10000 clients at most
# Peak: 2 pods, 4 while a rollout replaces them, x 2 workers = 8 processes
# Celery: 2 pods, 4 in a rollout, x 2 processes x 3 = 24
# Each: (10000 - 24) / 8 = 1247: a probe, 2 pools of (1247 - 1) / 2 = 623, at most 20
# If one server is primary and replica: 8 x (2 x 20 + 1) + 24 = 352 of 10000
WORKERS = 2
FLEET_PROCESSES = 8
POOLER_CLIENTS = 10000
POOLER_CONNECTIONS = 38
CELERY_CONCURRENCY = 2
CELERY_PROCESSES = 8
# A task has one session at a time.
CELERY_POOL_SIZE = 1
# A quarter of the connections that PgBouncer opens, for all processes.
EXPORTS_AT_ONCE = 1
POOL_SIZE = 20
# None: an overflow connection is closed on return, and opened by the next burst.
MAX_OVERFLOW = 0
