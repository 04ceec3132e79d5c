"""The connection budget is checked at start, and does not delay the start."""

import asyncio
import logging
import socket
from typing import Any

import pytest
from shop.db.budget import FLEET_PROCESSES, WORKERS
from shop.db.doctor import startup_check
from shop.db.doctor.checks import connection_demand
from shop.db.doctor.startup_check import open_database_checked
from shop.settings import Settings

TOO_MANY = {"database_pool_size": 1_000_000}
BUDGET = "connection budget: "


class ExitError(Exception):
    pass


async def logged(
    settings: Settings, log: pytest.LogCaptureFixture, **changes: Any
) -> logging.LogRecord:
    """Start with other settings, and wait for the log line about the budget."""
    with log.at_level(logging.INFO):
        async with open_database_checked(settings.model_copy(update=changes)):
            async with asyncio.timeout(30):
                while BUDGET not in log.text:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    (record,) = [each for each in log.records if BUDGET in each.message]
    return record


async def test_budget_that_does_not_fit_is_logged(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    record = await logged(settings, caplog, database_budget_check="warn", **TOO_MANY)

    processes = FLEET_PROCESSES // WORKERS * 3
    total, _ = connection_demand(settings.model_copy(update=TOO_MANY))
    assert record.levelname == "WARNING"
    assert record.message.startswith(f"{BUDGET}{processes} processes at the peak")
    assert " x 1000000" in record.message
    assert f" = {total}, but " in record.message
    facts = {"budget": "fail", "processes": processes, "connections": total}
    assert facts.items() <= vars(record).items()
    assert total >= processes * 1_000_000


async def test_budget_that_does_not_fit_can_end_the_start(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exit_now(code: int) -> None:
        assert code == 3
        raise ExitError

    monkeypatch.setattr("os._exit", exit_now)
    # The start waits for the answer, however late it comes.
    monkeypatch.setattr(startup_check, "START_SECONDS", 10)
    with pytest.raises(ExitError):
        await logged(settings, caplog, database_budget_check="refuse", **TOO_MANY)

    assert "WARNING" in caplog.text


async def test_budget_is_not_checked_when_the_check_is_off(settings: Settings) -> None:
    before = asyncio.all_tasks()
    off = settings.model_copy(update={"database_budget_check": "off", **TOO_MANY})
    async with open_database_checked(off):
        assert asyncio.all_tasks() == before


async def test_start_does_not_fail_when_the_budget_cannot_be_checked(
    unreachable: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    record = await logged(unreachable, caplog, database_budget_check="refuse")

    assert record.levelname == "WARNING"
    assert record.message.startswith(f"{BUDGET}cannot be checked: ")
    assert vars(record)["budget"] == "warn"


async def test_start_does_not_wait_for_a_silent_server(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        changes = {"database_host": host, "database_port": port}
        changes |= {"database_budget_check": "refuse"}
        # Both far above the second that the start takes.
        changes |= {"database_connect_timeout_seconds": 10}
        changes |= {"database_acquire_timeout_seconds": 12}
        with caplog.at_level(logging.INFO):
            async with open_database_checked(settings.model_copy(update=changes)):
                has_waited = BUDGET in caplog.text

    assert not has_waited
