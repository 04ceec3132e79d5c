"""How far a server is: by the numbers of its transactions (GTID)."""

import re
from typing import Any

from sqlalchemy import Connection, Engine, Row

from .position import NOWHERE, Position

# MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */.
WRITTEN = "SELECT /*M! @@GLOBAL.gtid_binlog_pos */ /*!80000 @@GLOBAL.gtid_executed */"
# domain-server-number of MariaDB, server:1-number of MySQL. What is behind a gap there
# has been executed too early to count on.
GTID = re.compile(r"(?:(\d+)-\d+-|([0-9a-f-]{36}):(?:1-)?)(\d+)")
# A read waits so long for a replica that has not come as far as its client has seen.
WAIT_SECONDS = 0.2
# The lag follows from positions: what a replica says of itself may be NULL.
TELLS_LAG = False


def read_written(connection: Connection, engine: Engine) -> Position:
    """Of the primary, after a COMMIT: whoever is there has what was committed."""
    # On the same session, but not by its engine, which would begin a transaction.
    alone = Connection(engine, connection.connection)
    # Without GTIDs nobody can tell.
    return _position(alone.exec_driver_sql(WRITTEN).scalar_one()) or NOWHERE


def replayed(look: Row[Any]) -> Position:
    return _position(look.position)


def _position(gtids: str | None) -> Position:
    return {
        domain or server: int(number)
        for domain, server, number in GTID.findall(gtids or "")
    }
