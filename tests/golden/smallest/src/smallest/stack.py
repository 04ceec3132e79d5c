"""What every request passes, the outermost first; `api.MIDDLEWARE` comes after it."""

from starlette.middleware import Middleware

from .middleware import BodyLimit, RequestLog
from .settings import Settings


def stack(settings: Settings) -> list[Middleware]:
    return [
        Middleware(RequestLog),
        Middleware(BodyLimit, max_bytes=settings.max_body_bytes),
    ]
