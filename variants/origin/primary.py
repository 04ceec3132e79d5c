"""What a message takes along from the request that has caused it."""

from collections.abc import Callable
from typing import Any

from .logs import request_id


def headers() -> dict[str, Any]:
    return {"request_id": request_id.get()}


def adopt(header: Callable[[str], Any]) -> None:
    request_id.set(header("request_id"))
