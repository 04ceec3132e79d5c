"""Health probes. /livez: the process runs. /readyz: it has reached its database, and
what the checks of `api.resources()` ask.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Any

from fastapi import APIRouter, Request, Response

from ..db import Database
from ..db.errors import classify, safe_message
from .errors import problem

# The platform waits for the answer usually for 1 s; the result counts for as long.
PROBE_SECONDS = 1

Check = Callable[[], Awaitable[object]]

router = APIRouter(tags=["health"])
logger = logging.getLogger(__name__)


@router.head("/livez")
@router.get("/livez")
async def livez() -> dict[str, str]:
    # Does not depend on the database: a restart would not bring it back.
    return {"status": "alive"}


@router.head("/readyz", response_model=None)
@router.get("/readyz", response_model=None)
async def readyz(request: Request) -> dict[str, Any] | Response:
    """503 until the database, and each check of the service, has answered once.

    A later outage stays a field of the body. It is the same for all instances: to
    take them all out of the load balancer would turn each route's own answer, a
    503 with Retry-After, into a refused connection.
    """
    health: Mapping[str, Health] = request.state.health
    states = await asyncio.gather(*(each.state() for each in health.values()))
    checks = dict(zip(health, states, strict=True))
    found: dict[str, Any] = {"database": checks.pop("database")}
    if checks:
        found["checks"] = checks
    reached = {name: each.was_reached for name, each in health.items()}
    reached["database"] = request.state.database.was_reached  # by any connection
    missing = [name for name, was_reached in reached.items() if not was_reached]
    if missing:
        return problem(503, f"No answer yet: {', '.join(missing)}.", **found)
    return {"status": "ready", **found}


def open_health(database: Database, checks: Mapping[str, Check]) -> dict[str, "Health"]:
    def bounded(check: Check) -> Check:
        async def run() -> None:
            async with asyncio.timeout(PROBE_SECONDS):
                await check()

        return run

    found = {name: Health(name, bounded(check)) for name, check in checks.items()}
    return {**found, "database": Health("database", database.ping)}


class Health:
    """Probes once a second, however many ask, and waits 1 s at most."""

    def __init__(self, name: str, check: Check) -> None:
        self.was_reached = False
        self._name = name
        self._check = check
        self._state = "unknown"
        self._probed_at = float("-inf")
        self._probe: asyncio.Task[None] | None = None

    async def state(self) -> str:
        if self._probe is None and monotonic() - self._probed_at > PROBE_SECONDS:
            self._probe = asyncio.create_task(self._run_probe())
        if self._probe:
            # Not cancelled: on a silent network the cleanup after a cancellation
            # takes longer than the probe.
            _, pending = await asyncio.wait({self._probe}, timeout=PROBE_SECONDS)
            if pending:
                return "timeout"
        return self._state

    async def _run_probe(self) -> None:
        try:
            await self._check()
        except Exception as error:  # any error is a state
            is_late = isinstance(error, TimeoutError)
            state = classify(error) or ("timeout" if is_late else "failing")
            if state != self._state:
                cause = safe_message(error) or type(error).__name__
                facts = {"dependency": self._name, "state": state}
                text = "readiness: the %(dependency)s is %(state)s: %(cause)s"
                logger.warning(text, facts | {"cause": cause}, extra=facts)
            self._state = state
        else:
            self._state = "reachable"
            self.was_reached = True
        finally:
            self._probed_at = monotonic()
            self._probe = None
