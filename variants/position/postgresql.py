"""Replication position of PostgreSQL: the LSN, which the replica replays."""

from typing import Any

from sqlalchemy import Connection, Engine, Row

from ..engine.dialect import READ_ONLY_SQLSTATE
from .watermark import Position

HEALTH_QUERY = """
SELECT pg_is_in_recovery() AS is_replica, NULL AS lag_seconds,
    (pg_last_wal_replay_lsn() - '0/0')::bigint AS position
"""
# Committed means flushed, unless the session does not wait for the flush.
COMMIT_QUERY = """
SELECT (CASE current_setting('synchronous_commit')
    WHEN 'off' THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END
    - '0/0')::bigint
"""
# A read waits so long for a replica that has not replayed what its client has seen.
WAIT_SECONDS = 0.2
# The lag follows from positions: what a replica reports may be NULL.
REPORTS_LAG = False


def commit_position(connection: Connection, _: Engine) -> Position:
    """Of the primary after a COMMIT: a replica that has reached it has the commit."""
    autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
    return {"": autocommit.exec_driver_sql(COMMIT_QUERY).scalar_one()}


def replay_position(health: Row[tuple[bool, None, int | None]]) -> Position:
    return {"": health.position or 0}


def standby_error(driver: Any, message: str) -> Exception:
    """The error that the standby would return to a write."""
    error: Exception = driver.OperationalError(message)
    setattr(error, "sqlstate", READ_ONLY_SQLSTATE)  # noqa: B010
    return error
