"""Checks of the doctor: the server and its timeouts."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ..config.limits import LIFETIME_SECONDS
from ..config.settings import ConnectionSettings
from ..engine.dialect import PRIMARY_QUERY
from .report import CheckResult

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
