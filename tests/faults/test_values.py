"""A value that its column cannot hold is the client's error, on every driver."""

import json
from collections.abc import Callable

import pytest

from tests.support.rendering import ROOT
from tests.support.servers import DRIVERS, DRIVERS_ON
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

INVALID, CONFLICT, TAKEN = "422 invalid-value", "409 conflict", "200"
BUG, BUSY = "500 about:blank", "503 busy again after 1 s"
TIMEOUT, UNAVAILABLE = "503 timeout again after 1 s", "503 unavailable again after 1 s"
CANARY = "canary"
ADD = ("add", "change", "many")
# What a server takes, or compares with what it has: it finds nothing then.
TAKES = {
    "postgresql": {
        **dict.fromkeys(("no number", "infinite", "span", "content"), (*ADD, "find")),
        **dict.fromkeys(
            ("label with NUL", "label of 70 bits", "label of 200 levels"), ADD
        ),
        "too long": ("find",),
        "packet": ("load",),
        "large packet": ("load",),
    },
    "mysql": {
        **dict.fromkeys(("id", "negative id"), ("find", "get")),
        **dict.fromkeys(
            ("short", "long", "too long", "price", "kind", "content"),
            ("find",),
        ),
        **dict.fromkeys(("NUL", "label with NUL"), (*ADD, "find")),
        "label of 200 levels": ("find",),
        "packet": ("load",),
        "many values": ("among",),
        "cast": ("rejected",),
    },
    "sqlite": {
        **dict.fromkeys(
            ("short", "long", "too long", "NUL", "price", "no number", "infinite"),
            (*ADD, "find"),
        ),
        **dict.fromkeys(("kind", "content", "label with NUL"), (*ADD, "find")),
        **dict.fromkeys(("label of 70 bits", "label of 200 levels"), (*ADD, "find")),
        "-1": ("rows", "after"),
        **dict.fromkeys(("kind in words", "number in words", "day in words"), ("own",)),
        "packet": ("load",),
        "large packet": ("load",),
    },
}
# psycopg sends a number of any size, and the server compares it.
PSYCOPG = {"price": ("find",)}
# MariaDB keeps JSON as a text with a constraint, of 32 levels at most.
MARIADB = dict.fromkeys(ADD, CONFLICT)
# Not by the client's fault: 42501 and 21000 have other causes too.
BUGS = {"bug", "label of an object", "privilege", "42501", "rows for one", "file"}
REJECTED = {
    **dict.fromkeys(("policy", "policy, update", "view", "trigger"), CONFLICT),
    **dict.fromkeys(("1114", "1038", "1135", "1637"), BUSY),
    **dict.fromkeys(("1047", "1030", "58030"), UNAVAILABLE),
    "25P04": TIMEOUT,
}


def expected(driver: str, server: str, case: str, way: str) -> str:
    dialect = DRIVERS[driver]["dialect"]
    takes = TAKES[dialect] | (PSYCOPG if driver == "psycopg" else {})
    if case in BUGS:
        return BUG
    if way in takes.get(case, ()):
        return TAKEN
    if server == "mariadb" and case == "label of 200 levels":
        return MARIADB[way]
    return REJECTED.get(case, INVALID)


@pytest.mark.parametrize(("driver", "server"), [*DRIVERS_ON, ("aiosqlite", "")])
def test_value_that_does_not_fit_is_422(
    service: Callable[[str], Service],
    database: Callable[..., dict[str, str]],
    driver: str,
    server: str,
) -> None:
    variables = database(driver, server) | {
        "PYTHONPATH": f"{ROOT}:{PROGRAMS}",
        "DATABASE_BUDGET_CHECK": "off",  # it would be one connection more
    }
    done = service(driver).program("faults/values", **variables)

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["answers"] == {
        case: {way: expected(driver, server, case, way) for way in answers}
        for case, answers in report["answers"].items()
    }
    assert report["opened"] == 1, "it costs the pool no connection"
    assert report["kept"]
    # Nor is one in a traceback, which is a field of a line.
    assert CANARY not in done.stderr, "no value of a parameter belongs there"
    assert CANARY not in json.dumps(report["bodies"])
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    bugs = [line["exception"] for line in lines if line["level"] == "ERROR"]
    answered = [way for ways in report["answers"].values() for way in ways.values()]
    assert len(bugs) == answered.count(BUG)
    assert "A JSON column cannot hold a value of type object" in bugs[0]
    assert "nothing" in bugs[-1]
