"""Asks the database how it is, for all who want to know."""

import asyncio
import logging
from time import monotonic

from .db.faults import classify, describe
from .db.session import Database

# A probe usually has 1 s to answer; what one has seen holds for as long.
PROBE_SECONDS = 1

logger = logging.getLogger(__name__)


class Health:
    """Asks the database once a second, whoever wants to know, and waits 1 s at most."""

    def __init__(self, database: Database) -> None:
        self.was_reachable = False
        self._database = database
        self._state = "unknown"
        self._asked_at = float("-inf")
        self._probe: asyncio.Task[None] | None = None

    async def of_database(self) -> str:
        if self._probe is None and monotonic() - self._asked_at > PROBE_SECONDS:
            self._probe = asyncio.create_task(self._ask())
        if self._probe:
            # Left to itself and not cancelled: on a silent network the cleanup
            # after a cancellation takes longer than the question.
            _, pending = await asyncio.wait({self._probe}, timeout=PROBE_SECONDS)
            if pending:
                return "timeout"
        return self._state

    async def _ask(self) -> None:
        try:
            await self._database.ping()
        except Exception as error:  # whatever it is, it is the answer
            state = classify(error) or "failing"
            if state != self._state:
                logger.warning("the database is %s: %s", state, describe(error))
            self._state = state
        else:
            self._state = "reachable"
            self.was_reachable = True
        finally:
            self._asked_at = monotonic()
            self._probe = None
