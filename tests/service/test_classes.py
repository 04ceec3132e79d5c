"""Each class of renderings: its own tests and those of the template's machinery, then
the service as it is started there.

Plain containers start in test_boot.py, logins by a token are in test_login.py, tasks in
tests/tasks.
"""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import make_url

from tests.support.combinations import class_of, cover, name
from tests.support.rendered_tests import own_tests, run_tests
from tests.support.rendering import ROOT, Answers
from tests.support.servers import DRIVERS, NETWORKED, SERVERS_OF, Server
from tests.support.service import PATIENT, Service, conversation, level, wait_until

pytestmark = pytest.mark.boot

CONVERSATION = ROOT / "tests" / "golden" / "conversation.json"
POOLERS = {
    "postgresql": ("none", "session", "transaction"),
    "mysql": ("none", "rds_proxy"),
}
CLASSES: list[Answers] = [
    {
        "driver": driver,
        "cloud": "aws_rds" if pooler == "rds_proxy" else "self_hosted",
        "runtime": runtime,
        "pooler": pooler,
    }
    for driver, row in DRIVERS.items()
    for pooler in POOLERS.get(row["dialect"], ())
    for runtime in ("container", "cloud_run", "lambda")
    if (runtime, pooler) not in {("container", "none"), ("cloud_run", "rds_proxy")}
]
# With replicas each pair of answers: what they add is the same in all of them.
ROUTED: list[Answers] = [
    {"driver": driver, "cloud": cloud, "runtime": runtime, "pooler": pooler}
    | {"with_replicas": True}
    for driver, row in DRIVERS.items()
    for pooler in POOLERS.get(row["dialect"], ())
    for cloud in ("self_hosted", "aws_rds", "aws_aurora")
    for runtime in ("container", "cloud_run")
    if runtime == "container" or cloud == "self_hosted"
    if cloud == "aws_aurora" or (cloud == "aws_rds") == (pooler == "rds_proxy")
]
# What proves the machinery runs for each pair of them: its files are the same in the
# others, which run what their owner gets.
PROVED = cover(CLASSES, 2)
OF_REPLICAS: tuple[str, ...] = (
    "test_replicas.py",
    "test_service.py",
    "test_sessions.py",
)
# These start in test_boot.py and in test_replicas.py.
PLAIN: list[Answers] = [
    *({"driver": driver} for driver in DRIVERS),
    *({"driver": driver, "with_replicas": True} for driver in NETWORKED),
]
# Those whose driver speaks to two servers, on each of them.
PLAIN_ON = [
    (answers, server)
    for answers in PLAIN
    for server in SERVERS_OF[DRIVERS[answers["driver"]]["dialect"]] or ("",)
]


def on_each(rows: list[Answers]) -> list[tuple[Answers, str]]:
    """Each class on one server, and the same class of the other driver on the other."""
    return [
        (answers, names[(number + offset) % len(names)])
        for offset, driver in enumerate(DRIVERS)
        if (names := SERVERS_OF[DRIVERS[driver]["dialect"]] or ("",))
        for number, answers in enumerate(
            answers for answers in rows if answers["driver"] == driver
        )
    ]


def name_on(part: Answers | str) -> str:
    return part if isinstance(part, str) else name(part)


def test_every_class_is_booted(accepted: list[Answers]) -> None:
    plain: list[Answers] = [
        {"driver": driver, "cloud": "", "runtime": "container"} for driver in DRIVERS
    ]
    routed = [row | {"pooler": "none", "with_replicas": True} for row in plain[:-1]]

    assert {class_of(each) for each in [*plain, *routed, *CLASSES, *ROUTED]} == {
        class_of(row) for row in accepted if row.get("auth") != "token"
    }


@pytest.mark.parametrize(("answers", "server"), PLAIN_ON, ids=name_on)
def test_plain_service_passes_all_tests(
    rendered: Callable[[Answers], Service],
    server_of: Callable[..., Server],
    answers: Answers,
    server: str,
) -> None:
    driver = answers["driver"]
    is_networked = driver in NETWORKED
    variables = {"DATABASE_URL": server_of(driver, server).url} if is_networked else {}
    done = run_tests(rendered(answers), **variables)

    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(
    ("answers", "server_name"), on_each([*CLASSES, *cover(ROUTED, 2)]), ids=name_on
)
def test_class_passes_all_tests_answers_and_stops_cleanly(
    rendered: Callable[[Answers], Service],
    database: Callable[..., dict[str, str]],
    server_of: Callable[..., Server],
    answers: Answers,
    server_name: str,
) -> None:
    driver = answers["driver"]
    shop, server = rendered(answers), server_of(driver, server_name)
    # Those of the plain service have shown that they find a server by themselves.
    if answers.get("with_replicas"):
        names = OF_REPLICAS
    else:
        names = () if answers in PROVED else own_tests(shop)
    done = run_tests(shop, *names, DATABASE_URL=server.url)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout

    variables = database(driver, server_name)
    if answers["pooler"] in {"transaction", "rds_proxy"}:
        variables["DATABASE_DIRECT_URL"] = variables["DATABASE_URL"]
    database_name = str(make_url(variables["DATABASE_URL"]).database)
    workers = 2 if answers["runtime"] == "container" else 1
    shop.make("migrate", **variables)
    start = shop.start_command
    with shop.running(command=start, **variables, **PATIENT) as running:
        answered = conversation(running.client)
        # The start and the end of a session take a moment.
        if answers["runtime"] == "lambda":
            wait_until(lambda: server.sessions(database_name) == [])
        else:
            assert server.sessions(database_name)
        metrics = running.client.get("/metrics").status_code
        running.wait_for_log("Application startup complete", times=workers)
        running.stop()

    assert answered == json.loads(CONVERSATION.read_text())
    assert metrics == (404 if answers["runtime"] == "lambda" else 200)
    log = running.log.read_text()
    assert "canary" not in log
    for line in log.splitlines():
        assert level(line) in ("INFO", "WARNING"), line
    assert log.count("Application shutdown complete") == workers
    wait_until(lambda: server.sessions(database_name) == [])
