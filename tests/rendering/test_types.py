"""The columns of databases that store no time zone."""

from datetime import UTC, datetime, timedelta, timezone
from runpy import run_path

import pytest

from tests.support.rendering import ROOT

HALF_PAST = datetime(2026, 11, 22, 12, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize("dialect", ["mysql", "sqlite"])
def test_time_is_stored_in_utc_and_never_guessed(dialect: str) -> None:
    module = run_path(str(ROOT / "variants" / "types" / f"{dialect}.py"))
    column = module["TYPES"][datetime]

    stored = column.process_bind_param(HALF_PAST, None)
    assert stored.replace(tzinfo=UTC) == HALF_PAST
    assert column.process_result_value(stored, None) == HALF_PAST
    with pytest.raises(ValueError, match="without a zone"):
        column.process_bind_param(HALF_PAST.replace(tzinfo=None), None)
