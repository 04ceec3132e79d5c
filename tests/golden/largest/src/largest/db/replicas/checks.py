"""Check of the doctor: role and lag of each replica, rights of its reader."""

import asyncio
from time import monotonic

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ..config.limits import Limits
from ..config.server import Server
from ..doctor.role import ROLE_QUERY
from ..engine.create import create_unpooled_engine
from ..errors import safe_message
from .position import HEALTH_QUERY, commit_position, replay_position
from .settings import ReplicaSettings
from .watermark import PRIMARY_ONLY, Position, has_reached

LAG_TOLERANCE_SECONDS = 1


async def replicas(
    connection: AsyncConnection, settings: ReplicaSettings
) -> tuple[str, str]:
    if not settings.replicas:
        return "ok", "none: reads go to the primary (DATABASE_REPLICA_URLS)"
    await connection.rollback()  # the transaction of the checks before
    engine = connection.engine.sync_engine
    written = await connection.run_sync(commit_position, engine)
    if written is PRIMARY_ONLY:
        return "fail", "the primary does not number its transactions: switch GTIDs on"
    found = [
        await _replica(name, each, settings.limits, written)
        for name, each in settings.replicas.items()
    ]
    worst = "warn" if "warn" in [level for level, _ in found] else "ok"
    return worst, "; ".join(text for _, text in found)


async def _replica(
    name: str, server: Server, limits: Limits, written: Position
) -> tuple[str, str]:
    engine = create_unpooled_engine(server, limits)
    try:
        async with engine.connect() as connection:
            began = monotonic()
            while True:
                health = (await connection.exec_driver_sql(HEALTH_QUERY)).one()
                lag = monotonic() - began
                reached = has_reached(replay_position(health), written)
                if reached or health.lag_seconds is not None or not health.is_replica:
                    break
                if lag > LAG_TOLERANCE_SECONDS:
                    break
                await asyncio.sleep(0.01)
            role = (await connection.exec_driver_sql(ROLE_QUERY)).one()
    except DBAPIError as error:
        return "warn", f"{name}: {safe_message(error)}"
    finally:
        await engine.dispose()
    if not health.is_replica:
        return "warn", f"{name} is a primary, and not read from"
    lag = lag if health.lag_seconds is None else float(health.lag_seconds)
    if lag > LAG_TOLERANCE_SECONDS:
        return "warn", f"{name} lags more than {LAG_TOLERANCE_SECONDS} s"
    text = f"{name} is a replica, lag {lag:.2f} s"
    if role.writes:
        return "warn", f"{text}; {role.name} may write: log in as the reader"
    return "ok", text


CHECKS = {"replicas": replicas}
