"""Checks of any server: encryption, role, sessions, connection budget, clock."""

from time import time

from sqlalchemy.ext.asyncio import AsyncConnection

from ..budget import FLEET_PROCESSES, WORKERS
from ..config.environment import positive_number
from ..config.server import is_local, is_socket
from ..config.settings import ConnectionSettings
from .report import Check, CheckResult
from .role import (
    CONNECTION_LIMIT_QUERY,
    ROLE_QUERY,
    SERVER_TIME_QUERY,
    SESSION_ID_QUERY,
)


async def encryption(_: AsyncConnection, settings: ConnectionSettings) -> CheckResult:
    mode = settings.database_sslmode
    if is_socket(settings.database_host):
        return "ok", "none, on a local socket"
    if mode == "require" and not settings.database_sslrootcert:
        return "warn", "not verified: set DATABASE_SSLMODE=verify-full"
    if mode == "disable" and not is_local(settings.database_host):
        return "fail", "none: set DATABASE_SSLMODE=verify-full"
    return "ok", "none, on this machine" if mode == "disable" else mode


async def role(connection: AsyncConnection, _: ConnectionSettings) -> CheckResult:
    found = (await connection.exec_driver_sql(ROLE_QUERY)).one()
    if found.creates:
        return "warn", (
            f"{found.name} may create and drop tables: log in as the role of"
            " deploy/bootstrap.sql that serves"
        )
    return "ok", f"{found.name}, which creates and drops no table"


async def sessions(
    connection: AsyncConnection, settings: ConnectionSettings
) -> CheckResult:
    port = f"port {settings.database_port}"
    if await shares_sessions(connection):
        return "fail", (
            f"{port} is that of a pooler in transaction mode: prepared statements and"
            " timeouts meet those of others. Use its port for session mode or the"
            " server's, or answer `pooler` anew"
        )
    return "ok", f"{port} gives each connection a session of its own"


async def shares_sessions(connection: AsyncConnection) -> bool:
    """Whether a pooler gives two connections the same session in turn."""
    async with connection.engine.connect() as other:
        mine, theirs = [
            {(await each.exec_driver_sql(SESSION_ID_QUERY)).scalar_one() for _ in "123"}
            for each in (connection, other)
        ]
    return len(mine) + len(theirs) > 2 or mine == theirs


def processes() -> int:
    """How many processes serve requests at the peak of a rollout."""
    workers = positive_number("WEB_CONCURRENCY", WORKERS)
    return FLEET_PROCESSES // WORKERS * workers


def connection_demand(settings: ConnectionSettings) -> tuple[int, str]:
    """How many connections all processes may open together, and the sum in words."""
    each, tasks = settings.connections, settings.connections_of_workers
    total = processes() * each + tasks
    text = f"{processes()} processes at the peak of a rollout x {each}"
    return total, f"{text}{f' + {tasks} of tasks' if tasks else ''} = {total}"


async def budget(
    connection: AsyncConnection, settings: ConnectionSettings
) -> CheckResult:
    """Unless `checks` of the settings has another of this name."""
    total, text = connection_demand(settings)
    limit = (await connection.exec_driver_sql(CONNECTION_LIMIT_QUERY)).one()
    if total > limit.most:
        return "fail", f"{text}, but {limit.name} leaves {limit.most}: open fewer"
    return "ok", f"{text} of the {limit.most} that {limit.name} leaves"


async def clock(connection: AsyncConnection, _: ConnectionSettings) -> CheckResult:
    before = time()
    query = await connection.exec_driver_sql(SERVER_TIME_QUERY)
    ahead = float(query.scalar_one()) - (before + time()) / 2
    if abs(ahead) > 1:
        return "warn", f"the server's is {ahead:+.0f} s ahead: set both by NTP"
    return "ok", "the same to a second"


SERVER_CHECKS: dict[str, Check] = {
    "encryption": encryption,
    "role": role,
    "sessions": sessions,
    "budget": budget,
    "clock": clock,
}
