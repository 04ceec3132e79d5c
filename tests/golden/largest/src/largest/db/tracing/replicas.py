"""Traces the choice of a replica, with the wait for the writes of the client."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from ..replicas.router import ReplicaRouter
from ..replicas.settings import ReplicaSettings
from ..replicas.watermark import required_position
from ..routing import Router, Target
from .engine import trace_engine
from .spans import POOL, is_traced, span
from .validation import trace_validation

# Why a read has passed by a replica, or by all of them.
UNHEALTHY = "db.replicas.unhealthy"

OpenRouter = Callable[
    [AsyncEngine, ReplicaSettings], AbstractAsyncContextManager[Router]
]


class TracedRouter(ReplicaRouter):
    async def choose(self, current: Target | None) -> Target:
        if current or not is_traced():
            return await super().choose(current)
        is_after_write = bool(required_position())
        with span("choose replica", {"db.read_after_write": is_after_write}) as new:
            target = await super().choose(None)
            new.set_attribute(POOL, getattr(target, "name", "primary"))
            if unhealthy := [each for each in self.replicas if each.unhealthy_reason]:
                reasons = [
                    f"{each.name}: {each.unhealthy_reason}" for each in unhealthy
                ]
                new.set_attribute(UNHEALTHY, reasons)
        return target


def trace_router(open_router: OpenRouter) -> OpenRouter:
    @asynccontextmanager
    async def open_traced(
        primary: AsyncEngine, settings: ReplicaSettings
    ) -> AsyncIterator[Router]:
        async with open_router(primary, settings) as router:
            if isinstance(router, ReplicaRouter):
                router.__class__ = TracedRouter
                for replica in router.replicas:
                    trace_engine(replica.engine, pool=replica.name)
                    trace_validation(replica.engine)
            yield router

    return open_traced
