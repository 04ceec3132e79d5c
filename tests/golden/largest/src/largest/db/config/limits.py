"""Limits of one process: how many connections, and how long each wait may take."""

from dataclasses import dataclass

PING_SECONDS = 1
# For the ROLLBACK of a connection that is returned. A longer one ends with it.
RESET_SECONDS = 1
# A connection used within the last second is not pinged: that would cost a round trip.
IDLE_SECONDS = 1
# Below the usual 1800 s after which load balancers and proxies close a connection.
LIFETIME_SECONDS = 1500


@dataclass(frozen=True)
class Limits:
    """Those of `ConnectionSettings`, without their prefix."""

    pool_size: int
    max_overflow: int
    acquire_timeout_seconds: float
    connect_timeout_seconds: float
    lock_timeout_seconds: float
    statement_timeout_seconds: float
    client_timeout_seconds: float
    idle_in_transaction_timeout_seconds: float
    export_timeout_seconds: float
    leak_trace: bool
