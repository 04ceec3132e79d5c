"""What a message takes along from the request that has caused it."""

from collections.abc import Callable
from typing import Any

from .db.position import SEEN, Seen, from_token, to_token
from .logs import request_id


def headers() -> dict[str, Any]:
    # Or the task would look for what was committed on a replica that has it not yet.
    seen = SEEN.get()
    read_after = to_token(seen.position) if seen else ""
    return {"request_id": request_id.get(), "read_after": read_after}


def adopt(header: Callable[[str], Any]) -> None:
    request_id.set(header("request_id"))
    SEEN.set(Seen(from_token(header("read_after") or "")))
