"""START HERE: the application, what it opens, and what it answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from . import api, health, probe
from .db.check import open_checked
from .errors import EXCEPTION_HANDLERS
from .logs import configure_logging
from .settings import Settings
from .stack import stack


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.load()
    configure_logging(settings.log_level)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        """Whatever this yields is in `request.state`."""
        async with open_checked(settings) as database, api.resources(settings) as more:
            own = {"settings": settings, "database": database}
            yield {**own, "health": probe.Health(database), **more}

    app = FastAPI(
        title=__name__.partition(".")[0],
        lifespan=lifespan,
        exception_handlers=EXCEPTION_HANDLERS,
        middleware=[*stack(settings), *api.MIDDLEWARE],
    )
    app.include_router(health.router)
    app.include_router(api.router)
    return app
