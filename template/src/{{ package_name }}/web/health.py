"""Health probes. /livez: the process runs. /readyz: it has reached its database."""

import asyncio
import logging
from time import monotonic

from fastapi import APIRouter, Request, Response

from ..db import Database
from ..db.errors import classify, safe_message
from .errors import problem

# The platform waits for the answer usually for 1 s; the result counts for as long.
PROBE_SECONDS = 1

router = APIRouter(tags=["health"])
logger = logging.getLogger(__name__)


@router.head("/livez")
@router.get("/livez")
async def livez() -> dict[str, str]:
    # Does not depend on the database: a restart would not bring it back.
    return {"status": "alive"}


@router.head("/readyz", response_model=None)
@router.get("/readyz", response_model=None)
async def readyz(request: Request) -> dict[str, str] | Response:
    """503 until the database has answered once, then 200.

    A later outage stays a field of the body. It is the same for all instances: to
    take them all out of the load balancer would turn each route's own answer, a
    503 with Retry-After, into a refused connection.
    """
    health: Health = request.state.health
    database = await health.of_database()
    if not request.state.database.was_reached:
        return problem(503, "The database has not answered yet.", database=database)
    return {"status": "ready", "database": database}


class Health:
    """Probes the database once a second, however many ask, and waits 1 s at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._state = "unknown"
        self._probed_at = float("-inf")
        self._probe: asyncio.Task[None] | None = None

    async def of_database(self) -> str:
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
            await self._database.ping()
        except Exception as error:  # any error is a state
            state = classify(error) or "failing"
            if state != self._state:
                text = "the database is %s: %s"
                facts = {"database": state}
                logger.warning(text, state, safe_message(error), extra=facts)
            self._state = state
        else:
            self._state = "reachable"
        finally:
            self._probed_at = monotonic()
            self._probe = None
