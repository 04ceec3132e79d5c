"""Replication position of Aurora: the clock, since its readers replay no GTID."""

from time import time
from typing import Any

from sqlalchemy import Connection, Engine, Row

from ..engine.dialect import READ_ONLY_MODE
from .watermark import Position

HEALTH_QUERY = """
SELECT @@innodb_read_only AS is_replica, (
        SELECT replica_lag_in_milliseconds / 1000
        FROM information_schema.replica_host_status WHERE server_id = @@aurora_server_id
    ) AS lag_seconds
"""
# After a write its client reads from the primary for so long, plus the lag of the
# reader. Usually that is less than 0.1 s.
STICKY_PRIMARY_SECONDS = 2
# A read does not wait for a reader: the primary answers it sooner.
WAIT_SECONDS = 0
# There is no other source of the lag: a reader whose lag is NULL is not used.
REPORTS_LAG = True


def commit_position(_: Connection, __: Engine) -> Position:
    """Of the primary after a COMMIT: a reader that has reached it has the commit."""
    return {"": _milliseconds()}


def replay_position(health: Row[Any]) -> Position:
    seconds = STICKY_PRIMARY_SECONDS + float(health.lag_seconds or 0)
    return {"": _milliseconds() - round(1000 * seconds)}


def standby_error(driver: Any, message: str) -> Exception:
    """The error that the reader would return to a write."""
    error: Exception = driver.OperationalError(READ_ONLY_MODE, message)
    return error


def _milliseconds() -> int:
    return round(time() * 1000)
