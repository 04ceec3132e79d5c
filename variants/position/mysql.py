"""Replication position of MySQL and MariaDB: GTIDs, numbers of transactions."""

from typing import Any

from sqlalchemy import Connection, Engine, Row

from ..engine.dialect import READ_ONLY_MODE
from .watermark import PRIMARY_ONLY, Position

# MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */.
HEALTH_QUERY = """
SELECT @@read_only OR @@innodb_read_only AS is_replica, NULL AS lag_seconds,
    /*M! @@GLOBAL.gtid_slave_pos */ /*!80000 @@GLOBAL.gtid_executed */ AS position
"""
# MySQL keeps the set when its GTIDs are switched off, but adds no commit to it.
COMMIT_QUERY = """
SELECT /*M! @@GLOBAL.gtid_binlog_pos */ /*!80000
    IF(@@GLOBAL.gtid_mode IN ('ON', 'ON_PERMISSIVE'), @@GLOBAL.gtid_executed, '') */
"""
# A read waits so long for a replica that has not executed what its client has seen.
WAIT_SECONDS = 0.2
# The lag follows from positions: what a replica reports may be NULL.
REPORTS_LAG = False


def commit_position(connection: Connection, engine: Engine) -> Position:
    """Of the primary after a COMMIT: a replica that has reached it has the commit."""
    # The same session, but not by its engine, which would begin a transaction.
    alone = Connection(engine, connection.connection)
    # Without GTIDs the position is unknown.
    return _parse(alone.exec_driver_sql(COMMIT_QUERY).scalar_one()) or PRIMARY_ONLY


def replay_position(health: Row[Any]) -> Position:
    return _parse(health.position)


def standby_error(driver: Any, message: str) -> Exception:
    """The error that the replica would return to a write."""
    error: Exception = driver.OperationalError(READ_ONLY_MODE, message)
    return error


def _parse(gtids: str | None) -> Position:
    """Of domain-server-number (MariaDB), or server:1-9:12-20:tag:1-5 (MySQL)."""
    position: Position = {}
    for gtid in "".join((gtids or "").lower().split()).split(","):
        source, *intervals = gtid.split(":")
        if intervals:
            position |= _parse_intervals(source, intervals)
        elif gtid:
            domain, _, number = gtid.split("-")
            position[domain] = int(number)
    return position


def _parse_intervals(source: str, intervals: list[str]) -> Position:
    """An interval that does not begin with 1 is a domain of its own, as is a tag.

    The numbers of the gap may never be used: with Group Replication another member
    that becomes the primary begins another interval.
    """
    position: Position = {}
    name = source
    for interval in intervals:
        first, _, last = interval.partition("-")
        if first.isdigit():
            domain = name if first == "1" else f"{name}.{first}"
            position[domain] = int(last or first)
        else:  # a tag, and then its intervals
            name = f"{source}.{first.replace('_', '~')}"
    return position
