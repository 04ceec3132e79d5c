"""Whether the servers are what the service was made for, the replicas included."""

import asyncio
from functools import partial
from time import monotonic

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from . import primary_check
from .engine import create_unpooled_engine
from .faults import describe
from .findings import LEVELS, Finding
from .log_position import read_written, replayed
from .look import LOOK
from .position import NOWHERE, Position, includes
from .remote import open_looking
from .settings import DatabaseSettings

# A replica that takes longer to come as far as the primary was is said to lag.
PATIENCE_SECONDS = 1


async def replicas(connection: AsyncConnection, settings: DatabaseSettings) -> Finding:
    if not settings.replicas():
        return "ok", "none: reads go to the primary (DATABASE_REPLICA_URLS)"
    await connection.rollback()  # which no look before has ended
    written = await connection.run_sync(read_written, connection.engine.sync_engine)
    if written is NOWHERE:
        return "fail", "the primary does not number its transactions: switch GTIDs on"
    found = [await _replica(each, written) for each in settings.replicas()]
    worst = max((level for level, _ in found), key=LEVELS.index)
    return worst, "; ".join(text for _, text in found)


async def _replica(settings: DatabaseSettings, written: Position) -> Finding:
    name = f"{settings.database_host}:{settings.database_port}"
    engine = create_unpooled_engine(settings)
    try:
        async with engine.connect() as connection:
            began = monotonic()
            while True:
                look = (await connection.exec_driver_sql(LOOK)).one()
                behind = monotonic() - began
                if includes(replayed(look), written) or look.lag_seconds is not None:
                    break
                if behind > PATIENCE_SECONDS or not look.is_replica:
                    break
                await asyncio.sleep(0.01)
    except DBAPIError as error:
        return "warn", f"{name}: {describe(error)}"
    finally:
        await engine.dispose()
    if not look.is_replica:
        return "warn", f"{name} is a primary, and not read from"
    behind = behind if look.lag_seconds is None else float(look.lag_seconds)
    if behind > PATIENCE_SECONDS:
        return "warn", f"{name} is more than {PATIENCE_SECONDS} s behind"
    return "ok", f"{name} is a replica, {behind:.2f} s behind"


# As open_database(), and what DATABASE_BUDGET_CHECK asks for.
open_checked = partial(open_looking, look=primary_check.budget)
LOOKS = {**primary_check.LOOKS, "replicas": replicas}
