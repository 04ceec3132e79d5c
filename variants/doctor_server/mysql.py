"""Checks of the doctor: the server and its timeouts."""

from sqlalchemy.ext.asyncio import AsyncConnection

from ..config.limits import LIFETIME_SECONDS
from ..config.settings import ConnectionSettings
from ..engine.dialect import PRIMARY_QUERY
from .report import CheckResult

# Words of an error, and what they mean.
HINTS: dict[str, str] = {}


async def server(connection: AsyncConnection, _: ConnectionSettings) -> CheckResult:
    version = (await connection.exec_driver_sql("SELECT VERSION()")).scalar_one()
    if not (await connection.exec_driver_sql(PRIMARY_QUERY)).scalar_one():
        return "fail", f"{version}, a replica, which cannot write: name the primary"
    return "ok", f"{version}, a primary"


async def timeouts(
    connection: AsyncConnection, settings: ConnectionSettings
) -> CheckResult:
    statement = settings.database_statement_timeout_seconds
    wanted = {
        "lock_wait_timeout": max(1, settings.database_lock_timeout_seconds),
        "max_statement_time": statement,  # MariaDB, in seconds
        "max_execution_time": round(statement * 1000),  # MySQL, in milliseconds
    }
    rows = await connection.exec_driver_sql("SHOW VARIABLES LIKE '%%_time%%'")
    values = {row.Variable_name: row.Value for row in rows}
    found = {name: float(values[name]) for name in wanted if name in values}
    rest = float(values["wait_timeout"])
    wrong = [name for name in found if not 0 < found[name] <= wanted[name]]
    if wrong:
        return "fail", f"not in force: {', '.join(wrong)}"
    if rest < LIFETIME_SECONDS:
        return "warn", f"wait_timeout {rest:g} s is below {LIFETIME_SECONDS} s"
    return "ok", ", ".join(f"{name} {value:g}" for name, value in found.items())
