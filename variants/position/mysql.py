"""Replication position of MySQL and MariaDB: GTIDs, numbers of transactions."""

import re
from typing import Any

from sqlalchemy import Connection, Engine, Row

from ..engine.dialect import READ_ONLY_ERRORS
from .watermark import PRIMARY_ONLY, Position

# MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */.
HEALTH_QUERY = """
SELECT @@read_only OR @@innodb_read_only AS is_replica, NULL AS lag_seconds,
    /*M! @@GLOBAL.gtid_slave_pos */ /*!80000 @@GLOBAL.gtid_executed */ AS position
"""
COMMIT_QUERY = (
    "SELECT /*M! @@GLOBAL.gtid_binlog_pos */ /*!80000 @@GLOBAL.gtid_executed */"
)
# domain-server-number of MariaDB, server:1-number of MySQL. Numbers behind a gap do not
# count: what is in the gap is not executed yet.
GTID = re.compile(r"(?:(\d+)-\d+-|([0-9a-f-]{36}):(?:1-)?)(\d+)")
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
    error: Exception = driver.OperationalError(min(READ_ONLY_ERRORS), message)
    return error


def _parse(gtids: str | None) -> Position:
    return {
        domain or server: int(number)
        for domain, server, number in GTID.findall(gtids or "")
    }
