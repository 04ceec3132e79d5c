"""The connections that one process may open, with the arithmetic behind them."""

# 2 workers x 5 connections: each is a thread and a file handle, and one of them
# all writes at a time: more would only wait.
WORKERS = 2
POOL_SIZE = 5
# None: an overflow connection is closed on return, and opened by the next burst.
MAX_OVERFLOW = 0
