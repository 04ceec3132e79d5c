"""`make doctor`: looks at the real server, and says what is wrong with the settings."""

import asyncio
import sys

from sqlalchemy.ext.asyncio import AsyncConnection

from .check import LOOKS
from .findings import Finding, examine
from .migrate import migrations
from .remote import clock, encryption
from .settings import DatabaseSettings
from .watch import LIFETIME_SECONDS


async def server(connection: AsyncConnection, _: DatabaseSettings) -> Finding:
    query = "SELECT VERSION() v, CONCAT(@@read_only, @@innodb_read_only) read_only"
    found = (await connection.exec_driver_sql(query)).one()
    if found.read_only not in ("00", "OFFOFF"):
        return "fail", f"{found.v}, a replica, which cannot write: name the primary"
    return "ok", f"{found.v}, a primary"


async def timeouts(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    statement = settings.database_statement_timeout_seconds
    wanted = {
        "lock_wait_timeout": max(1, settings.database_lock_timeout_seconds),
        "max_statement_time": statement,  # MariaDB, in seconds
        "max_execution_time": round(statement * 1000),  # MySQL, in milliseconds
    }
    rows = await connection.exec_driver_sql("SHOW VARIABLES LIKE '%%_time%%'")
    values = {row.Variable_name: row.Value for row in rows}
    found = {name: float(values[name]) for name in {*wanted} & {*values}}
    rest = float(values["wait_timeout"])
    wrong = [name for name in found if not 0 < found[name] <= wanted[name]]
    if wrong:
        return "fail", f"not in force: {', '.join(wrong)}"
    if rest < LIFETIME_SECONDS:
        return "warn", f"wait_timeout {rest:g} s is below {LIFETIME_SECONDS} s"
    return "ok", ", ".join(f"{name} {value:g}" for name, value in found.items())


if __name__ == "__main__":
    looks = {"server": server, "encryption": encryption, **LOOKS}
    looks |= {"timeouts": timeouts, "clock": clock, "migrations": migrations}
    sys.exit(asyncio.run(examine(DatabaseSettings.load(), looks)))
