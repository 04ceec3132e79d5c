"""The budget of the fleet is checked at start, and never in the way of it."""

import asyncio
import logging
import socket
from time import monotonic
from typing import Any

import pytest

from largest.db import remote
from largest.db.budget import FLEET_PROCESSES, WORKERS
from largest.db.check import open_checked
from largest.db.fleet import fleet
from largest.settings import Settings

TOO_MANY = {"database_pool_size": 1_000_000}


class Ended(Exception):
    pass


async def told(
    settings: Settings, log: pytest.LogCaptureFixture, **changes: Any
) -> str:
    """Start with other settings, and wait for what is said about the budget."""
    with log.at_level(logging.INFO):
        async with open_checked(settings.model_copy(update=changes)):
            async with asyncio.timeout(10):
                while "budget: " not in log.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    (record,) = [each for each in log.records if "budget: " in each.message]
    return f"{record.levelname} {record.message}"


async def test_budget_that_does_not_fit_is_told(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    line = await told(settings, caplog, database_budget_check="warn", **TOO_MANY)

    processes = FLEET_PROCESSES // WORKERS * 3
    total, _ = fleet(settings.model_copy(update=TOO_MANY))
    assert line.startswith(f"WARNING budget: {processes} processes at the peak")
    assert " x 1000000" in line
    assert f" = {total}, but " in line
    assert total >= processes * 1_000_000


async def test_budget_that_does_not_fit_can_end_the_start(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(code: int) -> None:
        assert code == 3
        raise Ended

    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr(remote, "START_SECONDS", 10)  # the answer is what is awaited
    with pytest.raises(Ended):
        await told(settings, caplog, database_budget_check="refuse", **TOO_MANY)

    assert "WARNING" in caplog.text


async def test_budget_is_not_looked_at_when_that_is_off(settings: Settings) -> None:
    before = asyncio.all_tasks()
    off = settings.model_copy(update={"database_budget_check": "off", **TOO_MANY})
    async with open_checked(off):
        assert asyncio.all_tasks() == before


async def test_start_does_not_fail_when_nobody_can_tell(
    unreachable: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    line = await told(unreachable, caplog, database_budget_check="refuse")

    assert line.startswith("WARNING budget: cannot be checked: ")


async def test_start_does_not_wait_for_a_silent_server(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        changes = {"database_host": host, "database_port": port}
        changes |= {"database_budget_check": "refuse"}
        # Both far above the second that the start takes.
        changes |= {"database_connect_timeout_seconds": 4}
        changes |= {"database_acquire_timeout_seconds": 5}
        began = monotonic()
        async with open_checked(settings.model_copy(update=changes)):
            seconds = monotonic() - began

    assert seconds < 3
