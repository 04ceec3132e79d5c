"""Checks of the doctor: the pooler, and the server behind it."""

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from ..budget import POOLER_CLIENTS, POOLER_CONNECTIONS
from ..doctor.checks import connection_demand, processes, shares_sessions
from ..doctor.report import CheckResult
from ..doctor.role import CONNECTION_LIMIT_QUERY, SERVER_ID_QUERY
from ..engine.create import create_engine
from .settings import PoolerSettings


async def budget(connection: AsyncConnection, settings: PoolerSettings) -> CheckResult:
    total, text = connection_demand(settings)
    limit = (await connection.exec_driver_sql(CONNECTION_LIMIT_QUERY)).one()
    if total > POOLER_CLIENTS:
        return "fail", f"{text}, but the pooler takes {POOLER_CLIENTS}: open fewer"
    listeners = processes() * settings.listeners
    opens = f"the pooler opens {POOLER_CONNECTIONS}"
    opens += f", listen() {listeners}" if listeners else ""
    if limit.most < POOLER_CONNECTIONS + listeners:
        return "fail", f"{opens}, but {limit.name} leaves {limit.most}"
    return "ok", f"{text} of {POOLER_CLIENTS} clients; {opens} of {limit.most}"


async def sessions(
    connection: AsyncConnection, settings: PoolerSettings
) -> CheckResult:
    port = f"port {settings.database_port}"
    if await shares_sessions(connection):
        return "ok", f"{port} shares them, and this service keeps nothing in one"
    return "warn", f"{port} is not that of a pooler in transaction mode"


async def direct(connection: AsyncConnection, settings: PoolerSettings) -> CheckResult:
    if not settings.database_direct_url:
        return "warn", "DATABASE_DIRECT_URL is missing: migrations have no way"
    limits = replace(settings.limits, pool_size=2)
    engine = create_engine(settings.direct(), limits)
    async with engine.connect() as server:
        shared = await shares_sessions(server)
        expected = (await server.exec_driver_sql(SERVER_ID_QUERY)).scalar_one()
    await engine.dispose()
    if shared:
        return "fail", "DATABASE_DIRECT_URL is that of the pooler: name the server"
    if (await connection.exec_driver_sql(SERVER_ID_QUERY)).scalar_one() != expected:
        return "fail", (
            "the pooler leads to another server than DATABASE_DIRECT_URL: after a"
            " failover let the pooler connect again (RECONNECT of PgBouncer, or its"
            " restart)"
        )
    return "ok", "DATABASE_DIRECT_URL is that of the server"


CHECKS = {"sessions": sessions, "direct": direct, "budget": budget}
