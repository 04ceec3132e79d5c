"""START HERE: the application, what it opens, and what it answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import signature
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from . import api
from .db import Database
from .db.doctor.startup_check import open_database_checked
from .features import (
    CONFIGURE,
    INNER_MIDDLEWARE,
    OBSERVERS,
    OUTER_MIDDLEWARE,
    PROJECT,
    ROUTERS,
    TELEMETRY,
)
from .settings import Settings
from .web import health
from .web.edge import edge_middleware
from .web.errors.handlers import EXCEPTION_HANDLERS
from .web.errors.unhandled import UNHANDLED_ERRORS
from .web.logs import configure_logging
from .web.middleware import default_middleware
from .web.openapi import DocumentedApp
from .web.routes import RouteTable


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings.load()
    configure_logging(settings.log_level)
    for configure in CONFIGURE:
        configure(settings)
    routes = RouteTable()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, object]]:
        """What this yields is in `request.state`."""
        routes.read(app)
        async with (
            open_database_checked(settings) as database,
            _resources(settings, database) as resources,
        ):
            found = health.open_health(database, resources.get("readiness_checks", {}))
            own = {"settings": settings, "database": database, "health": found}
            yield {**own, **resources}

    app = DocumentedApp(
        project=PROJECT,
        has_docs=settings.docs,
        # A redirect would go to any Host, and to http:// behind a proxy.
        redirect_slashes=False,
        lifespan=lifespan,
        # An api.py of an older release has none.
        exception_handlers=EXCEPTION_HANDLERS | getattr(api, "EXCEPTION_HANDLERS", {}),
        middleware=[
            *default_middleware(settings, routes, OBSERVERS),
            *edge_middleware(settings, OUTER_MIDDLEWARE),
            UNHANDLED_ERRORS,
            *map(Middleware, OUTER_MIDDLEWARE),
            *api.MIDDLEWARE,
            *(Middleware(each, routes) for each in INNER_MIDDLEWARE),
            UNHANDLED_ERRORS,
        ],
        telemetry=TELEMETRY,
    )
    for router in (health.router, *ROUTERS):
        app.include_router(router, include_in_schema=False)
    app.include_router(api.router)
    app.warn_about_shared_ids()
    return app


def _resources(settings: Settings, database: Database) -> Any:
    """With the database for those that have a parameter of that name."""
    resources: Any = api.resources
    if "database" in signature(resources).parameters:
        return resources(settings, database=database)
    return resources(settings)
