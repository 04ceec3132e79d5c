"""Models: no annotation loses a value, no attribute needs an await after a flush."""

import json
from collections.abc import Callable

import pytest

from tests.support.servers import DRIVERS, DRIVERS_ON
from tests.support.service import Service

pytestmark = pytest.mark.boot

NO_DECIMAL = {
    "mysql": "mapped_column(Numeric(12, 2))",
    "sqlite": "store whole numbers of the smallest unit",
}


@pytest.mark.parametrize(("driver", "server"), [*DRIVERS_ON, ("aiosqlite", "")])
def test_no_annotation_loses_a_value(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    done = service(driver).program("column_types", **database(driver, server))
    assert not done.stderr, done.stderr  # nor is a warning
    outcome = json.loads(done.stdout)
    mixed, decimal, numeric = outcome.pop("rejected")

    assert set(outcome.pop("nulls")) == {1}
    assert outcome == {
        "accepted": [],
        "after flush": [True] * 4,
        "changed": [],
        "changed by declared types": [],
        "in place": [{"a": 1, "b": 2}, ["a", "b"]],
        "times": [True] * 3,
    }
    assert "value: the values of Mixed are stored" in mixed
    sentence = NO_DECIMAL.get(DRIVERS[driver]["dialect"])
    assert (sentence in decimal) if sentence else not decimal
    # Without digits it would be DECIMAL(10, 0).
    if DRIVERS[driver]["dialect"] == "mysql":
        assert "things__Decimal1.value: MySQL drops" in numeric
    else:
        assert not numeric
