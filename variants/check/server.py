"""Whether the server is what the service was made for."""

from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from .dialect import CONNECTION_LIMIT
from .findings import Finding
from .fleet import fleet
from .remote import open_looking, shares_sessions
from .settings import DatabaseSettings


async def budget(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    total, sum_ = fleet(settings)
    limit = (await connection.exec_driver_sql(CONNECTION_LIMIT)).one()
    if total > limit.most:
        return "fail", f"{sum_}, but {limit.whose} leaves {limit.most}: open fewer"
    return "ok", f"{sum_} of the {limit.most} that {limit.whose} leaves"


async def sessions(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    port = f"port {settings.database_port}"
    if await shares_sessions(connection):
        return "fail", (
            f"{port} is that of a pooler in transaction mode: prepared statements and"
            " limits meet those of others. Use its port for session mode or the"
            " server's, or answer `pooler` anew"
        )
    return "ok", f"{port} gives each connection one of its own"


# As open_database(), and what DATABASE_BUDGET_CHECK asks for.
open_checked = partial(open_looking, look=budget)
LOOKS = {"sessions": sessions, "budget": budget}
