"""What this service adds: routes, middleware, error answers, and open resources."""

from collections.abc import AsyncIterator, Callable
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

# By the class of an exception of yours; `Exception` itself stays a 500.
EXCEPTION_HANDLERS: dict[Any, Callable[..., Any]] = {}


@asynccontextmanager
async def resources(settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """Open what lives as long as the process, such as an HTTP client.

    One more parameter, `database: Database`, has the pool of the requests.

    The names you yield are attributes of `request.state`. With one more,
    `readiness_checks`, /readyz also asks what is yours: a dict of a name and of an
    `async def` without parameters, which raises an error or takes less than 1 s.
    """
    yield {}
