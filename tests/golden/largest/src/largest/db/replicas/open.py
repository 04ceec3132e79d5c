"""Opens the router of reads, with two engines for each replica."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from ..config.limits import Limits
from ..config.server import Server
from ..engine.create import create_engine, disposing
from ..orm.guard import guard
from ..primary import PrimaryOnly
from ..routing import Router
from .failover import fetch_one
from .reader_setup import READER_SETUP
from .replica import Replica
from .router import ReplicaRouter
from .settings import ReplicaSettings


@asynccontextmanager
async def open_replica_router(
    primary: AsyncEngine, settings: ReplicaSettings
) -> AsyncIterator[Router]:
    """Without DATABASE_REPLICA_URLS reads go to the primary."""
    async with AsyncExitStack() as stack:
        replicas = []
        for name, server in settings.replicas.items():
            engine, probes = _engines(name, server, settings.limits)
            await stack.enter_async_context(disposing(engine))
            await stack.enter_async_context(disposing(probes))
            max_lag = settings.database_replica_max_lag_seconds
            replicas.append(Replica(name, engine, probes, max_lag))
            replicas[-1].probe()
        if not replicas:
            yield PrimaryOnly(primary)
            return
        router = ReplicaRouter(primary, replicas)
        stack.push_async_callback(router.close)
        yield router


def _engines(
    name: str, server: Server, limits: Limits
) -> tuple[AsyncEngine, AsyncEngine]:
    """For reads, and for probes: one connection, which no read can keep busy."""
    one = replace(limits, pool_size=1, max_overflow=0)
    engine = create_engine(server, limits, pool=name)
    guard(engine)
    probes = create_engine(server, one, pool=name, metrics=False)
    for each in (engine, probes):
        event.listen(each.sync_engine, "connect", _set_read_only)
    return engine, probes


def _set_read_only(connection: Any, _: Any) -> None:
    for statement in READER_SETUP:
        fetch_one(connection, statement)
