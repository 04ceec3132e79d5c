"""How far a server is: by its position in the log of all writes (LSN)."""

from sqlalchemy import Connection, Engine, Row

from .position import Position

# All that is committed has been flushed, unless the session does not wait for that.
WRITTEN = """
SELECT (CASE current_setting('synchronous_commit')
    WHEN 'off' THEN pg_current_wal_insert_lsn() ELSE pg_current_wal_flush_lsn() END
    - '0/0')::bigint
"""
# A read waits so long for a replica that has not come as far as its client has seen.
WAIT_SECONDS = 0.2
# The lag follows from positions: what a replica says of itself may be NULL.
TELLS_LAG = False


def read_written(connection: Connection, _: Engine) -> Position:
    """Of the primary, after a COMMIT: whoever is there has what was committed."""
    alone = connection.execution_options(isolation_level="AUTOCOMMIT")
    return {"": alone.exec_driver_sql(WRITTEN).scalar_one()}


def replayed(look: Row[tuple[bool, None, int | None]]) -> Position:
    return {"": look.position or 0}
