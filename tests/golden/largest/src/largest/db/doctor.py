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

POOLER = "that is a pooler, for which this service was not made (README, Doctor)"
HINTS = {"startup parameter": POOLER, "prepared statement": POOLER}
LIMITS = "SELECT name, setting::float / 1000 seconds FROM pg_settings WHERE unit = 'ms'"


async def server(connection: AsyncConnection, _: DatabaseSettings) -> Finding:
    query = "SELECT current_setting('server_version') v, pg_is_in_recovery() standby"
    found = (await connection.exec_driver_sql(query)).one()
    if found.standby:
        return "fail", f"{found.v}, a standby, which cannot write: name the primary"
    return "ok", f"{found.v}, a primary"


async def timeouts(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    wanted = {
        "lock_timeout": settings.database_lock_timeout_seconds,
        "statement_timeout": settings.database_statement_timeout_seconds,
        "idle_in_transaction_session_timeout": (
            settings.database_idle_in_transaction_timeout_seconds
        ),
    }
    rows = await connection.exec_driver_sql(LIMITS)
    found = {row.name: row.seconds for row in rows}
    wrong = [name for name in wanted if not 0 < found[name] <= wanted[name]]
    if wrong:
        role = f"ALTER ROLE {settings.database_user} SET"
        sets = "; ".join(f"{role} {name} = '{wanted[name]:g}s'" for name in wrong)
        return "fail", f"not in force: {sets}"
    if found["deadlock_timeout"] >= found["lock_timeout"]:
        return "warn", "lock_timeout is not above deadlock_timeout: none is found out"
    rest = found.get("idle_session_timeout", 0)
    if 0 < rest < LIFETIME_SECONDS:
        return "warn", f"idle_session_timeout {rest:g} s is below {LIFETIME_SECONDS} s"
    return "ok", ", ".join(f"{name} {found[name]:g} s" for name in wanted)


if __name__ == "__main__":
    looks = {"server": server, "encryption": encryption, **LOOKS}
    looks |= {"timeouts": timeouts, "clock": clock, "migrations": migrations}
    sys.exit(asyncio.run(examine(DatabaseSettings.load(), looks, HINTS)))
