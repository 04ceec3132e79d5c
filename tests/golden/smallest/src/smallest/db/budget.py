"""The connections that one process may open, with the arithmetic behind them."""

# 2 workers x 5 connections: each is a thread and a file handle. One of them all
# writes at a time, the others read meanwhile: more would only wait.
WORKERS = 2
POOL_SIZE = 5  # stay open
MAX_OVERFLOW = 0  # closed again when nobody waits for them
