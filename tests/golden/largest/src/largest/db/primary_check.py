"""Whether the pooler and the server behind it are what the service was made for."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from .budget import POOLER_CLIENTS, POOLER_CONNECTIONS
from .dialect import CONNECTION_LIMIT
from .engine import create_engine
from .findings import Finding
from .fleet import fleet
from .remote import open_looking, shares_sessions
from .settings import DatabaseSettings


async def budget(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    total, sum_ = fleet(settings)
    limit = (await connection.exec_driver_sql(CONNECTION_LIMIT)).one()
    if total > POOLER_CLIENTS:
        return "fail", f"{sum_}, but the pooler takes {POOLER_CLIENTS}: open fewer"
    opens = f"the pooler opens {POOLER_CONNECTIONS}"
    if limit.most < POOLER_CONNECTIONS:
        return "fail", f"{opens}, but {limit.whose} leaves {limit.most}"
    return "ok", f"{sum_} of {POOLER_CLIENTS} clients; {opens} of {limit.most}"


async def sessions(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    port = f"port {settings.database_port}"
    if await shares_sessions(connection):
        return "ok", f"{port} shares them, and nothing is kept in one"
    return "warn", f"{port} is not that of a pooler in transaction mode"


async def direct(_: AsyncConnection, settings: DatabaseSettings) -> Finding:
    if not settings.database_direct_url:
        return "warn", "DATABASE_DIRECT_URL is missing: migrations have no way"
    server = settings.direct().model_copy(update={"database_pool_size": 2})
    engine = create_engine(server)
    async with engine.connect() as connection:
        shared = await shares_sessions(connection)
    await engine.dispose()
    if shared:
        return "fail", "DATABASE_DIRECT_URL is that of the pooler: name the server"
    return "ok", "DATABASE_DIRECT_URL is that of the server"


# As open_database(), and what DATABASE_BUDGET_CHECK asks for.
open_checked = partial(open_looking, look=budget)
LOOKS = {"sessions": sessions, "direct": direct, "budget": budget}
