"""A connection in an unknown state is not used again."""

from typing import Any

import pytest
from shop.db.engine.create import create_engine
from shop.settings import Settings
from sqlalchemy import select
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError


async def test_connection_that_broke_its_driver_is_not_used_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is none of the driver's: what the server sends next is unknown."""
    engine = create_engine(settings.server, settings.limits)

    def fail(*_: Any) -> None:
        raise AssertionError("no pipeline")

    async with engine.connect() as connection:
        await connection.exec_driver_sql("SELECT 1")
        before = (await connection.get_raw_connection()).driver_connection
        with monkeypatch.context() as patch:
            for name in ("do_execute", "do_execute_no_params"):
                patch.setattr(DefaultDialect, name, fail)
            with pytest.raises(AssertionError):
                await connection.exec_driver_sql("SELECT 1")
    async with engine.connect() as connection:
        after = (await connection.get_raw_connection()).driver_connection

    assert after is not before
    await engine.dispose()


async def test_error_of_the_event_loop_is_a_lost_connection(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of uvloop, for a socket that is closed: none of the driver."""
    engine = create_engine(settings.server, settings.limits)
    async with engine.connect() as connection:
        raw = (await connection.get_raw_connection()).driver_connection

        def fail(*_: Any) -> None:
            engine.dialect.watchdog.shut_down(raw)  # type: ignore[attr-defined]
            raise RuntimeError("the handler is closed")

        monkeypatch.setattr(DefaultDialect, "do_execute", fail)
        with pytest.raises(DBAPIError) as caught:
            await connection.execute(select(1))

    assert caught.value.connection_invalidated
    await engine.dispose()
