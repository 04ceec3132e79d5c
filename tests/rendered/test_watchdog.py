"""A connection in an unknown state is not used again."""

from typing import Any

import pytest
from shop.db.engine.create import create_engine
from shop.settings import Settings
from sqlalchemy.engine.default import DefaultDialect


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
