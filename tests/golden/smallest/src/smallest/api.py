"""What this service adds: routes, middleware, and the resources it keeps open."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter
from starlette.middleware import Middleware

from . import orders, payments
from .settings import Settings

router = APIRouter()
router.include_router(orders.router)
router.include_router(payments.router)

# Pure ASGI only: BaseHTTPMiddleware runs a request in a second task and hides the
# client's disconnect.
MIDDLEWARE: list[Middleware] = []


@asynccontextmanager
async def resources(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Open what lives as long as the process, such as an HTTP client.

    The names you yield are attributes of `request.state`. With one more,
    `readiness_checks`, /readyz also asks what is yours: a dict of a name and of an
    `async def` without parameters, which raises an error or takes less than 1 s.
    """
    yield {}
