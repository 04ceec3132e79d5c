"""Limits of one process: how many connections, and how long each wait may take."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Those of `ConnectionSettings`, without their prefix."""

    pool_size: int
    max_overflow: int
    acquire_timeout_seconds: float
    lock_timeout_seconds: float
    export_timeout_seconds: float
    leak_trace: bool
