"""Checks of the doctor: the server and its timeouts; queries of other checks."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ..config.limits import LIFETIME_SECONDS
from ..config.settings import ConnectionSettings
from ..engine.dialect import PRIMARY_QUERY
from .report import CheckResult

# The server, its session, its time; the lowest limit of connections for this role,
# which is no superuser, with the name of that limit.
SERVER_ID_QUERY = "SELECT pg_postmaster_start_time()"
SESSION_ID_QUERY = "SELECT pg_backend_pid()"
SERVER_TIME_QUERY = "SELECT extract(epoch FROM clock_timestamp())"
CONNECTION_LIMIT_QUERY = """
SELECT sum(setting::int * CASE name WHEN 'max_connections' THEN 1 ELSE -1 END) AS most,
    'max_connections' AS name FROM pg_settings
    WHERE name = 'max_connections' OR name LIKE '%%reserved_connections'
UNION SELECT rolconnlimit, 'the role''s CONNECTION LIMIT' FROM pg_roles
    WHERE rolname = current_user AND rolconnlimit >= 0
UNION SELECT datconnlimit, 'the database''s CONNECTION LIMIT' FROM pg_database
    WHERE datname = current_database() AND datconnlimit >= 0
ORDER BY most LIMIT 1
"""

POOLER = (
    "a pooler rejects this: use the mode that the answer `pooler` names, or answer anew"
)
HINTS = {"startup parameter": POOLER, "prepared statement": POOLER}
TIMEOUTS_QUERY = (
    "SELECT name, setting::float / 1000 seconds FROM pg_settings WHERE unit = 'ms'"
)


async def server(connection: AsyncConnection, _: ConnectionSettings) -> CheckResult:
    version = (await connection.exec_driver_sql("SHOW server_version")).scalar_one()
    if not (await connection.exec_driver_sql(PRIMARY_QUERY)).scalar_one():
        return "fail", f"{version}, a standby, which cannot write: name the primary"
    return "ok", f"{version}, a primary"


async def timeouts(
    connection: AsyncConnection, settings: ConnectionSettings
) -> CheckResult:
    wanted = {
        "lock_timeout": settings.database_lock_timeout_seconds,
        "statement_timeout": settings.database_statement_timeout_seconds,
        "idle_in_transaction_session_timeout": (
            settings.database_idle_in_transaction_timeout_seconds
        ),
    }
    rows = await connection.exec_driver_sql(TIMEOUTS_QUERY)
    found = {row.name: row.seconds for row in rows}
    wrong = [name for name in wanted if not 0 < found[name] <= wanted[name]]
    if wrong:
        role = f"ALTER ROLE {settings.database_user} SET"
        sets = "; ".join(f"{role} {name} = '{wanted[name]:g}s'" for name in wrong)
        return "fail", f"not in force: {sets}"
    if found["deadlock_timeout"] >= found["lock_timeout"]:
        return (
            "warn",
            "lock_timeout is not above deadlock_timeout: no deadlock is found",
        )
    rest = found.get("idle_session_timeout", 0)
    if 0 < rest < LIFETIME_SECONDS:
        return "warn", f"idle_session_timeout {rest:g} s is below {LIFETIME_SECONDS} s"
    return "ok", ", ".join(f"{name} {found[name]:g} s" for name in wanted)
