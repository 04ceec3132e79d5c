"""Replicas and one process: the way of each read, and its cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import make_url

from tests.support.clusters import Cluster, Node
from tests.support.rendering import ROOT
from tests.support.servers import DRIVERS, NETWORKED_ON, usual_server
from tests.support.service import PROGRAMS, Service

pytestmark = pytest.mark.boot

# The longest that they may be, so that a busy machine has time: the limits of a connect
# and of a checkout are above what a silent replica may cost.
VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "DATABASE_POOL_SIZE": "4",
    "DATABASE_MAX_OVERFLOW": "0",
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "3.5",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "4.5",
    "DATABASE_LOCK_TIMEOUT_SECONDS": "1.1",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "4",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "4.5",
    "DATABASE_REPLICA_MAX_LAG_SECONDS": "10",
}


def found(fallbacks: dict[str, int], bans: dict[str, int], **more: Any) -> Any:
    return {**more, "fallbacks": fallbacks, "bans": bans}


REPLICA, PRIMARY = "replica", "primary"
RIGHT: dict[str, Any] = {
    "session_stays_on_one_server": {"torn": 0},
    "killed_session_moves_to_the_primary": found(
        {"failed": 1}, {}, went=[REPLICA, PRIMARY, PRIMARY], sessions=1
    ),
    "failover_is_logged": [["primary is second now, was first", "second", "first"]],
    "name_that_leads_to_a_standby_is_asked_once_a_second": {
        "asked again": True,
        "hasty": False,
        "same pool": True,
    },
    "statement_that_takes_too_long_is_not_repeated": found({}, {}, outcome="timeout"),
    "replica_is_not_written_to": {"refused": "25006"},
    "silent_replica_delays_no_read": found(
        {"failed": 7, "none ready": 1},
        {"unreachable": 1},
        **{
            "suspect": PRIMARY,
            "in flight": {PRIMARY: 4},
            "queued": {PRIMARY: 3},
            "while banned": {PRIMARY: 5},
        },
    ),
    "lost_probe_is_repeated": found({}, {}, healthy=True),
    "no_read_waits_for_a_replica_that_is_far_behind": {"went": PRIMARY, "late": False},
    "reader_that_leaves_while_it_waits_leaves_nothing": {"went": REPLICA, "tasks": 0},
    "session_leaves_a_replica_that_was_banned": found(
        {"banned": 1}, {"unreachable": 1}, went=[REPLICA, PRIMARY], late=False
    ),
    "connection_that_hangs_as_it_begins_delays_no_read": found(
        {"failed": 1}, {"refused": 1}, went=PRIMARY
    ),
    "probe_that_hangs_as_it_connects_is_repeated": {"unreachable": 1},
    "commit_without_a_position_is_no_lag": found({"behind": 1}, {}, went=PRIMARY),
    "ban_outlasts_a_probe_that_had_begun": {"went": PRIMARY, "bans": 1},
    "position_stays_with_its_task": [[PRIMARY, True], [REPLICA, False]],
    "refusal_to_write_is_not_repeated_elsewhere": {
        "refused": [True, True],
        "rows": 0,
        "bans": {},
    },
    "session_reads_what_its_client_has_written_since": {
        "went": [REPLICA, PRIMARY, PRIMARY, REPLICA, REPLICA],
        "odd": False,
    },
    "statements_at_once_are_each_judged_by_their_own_server": found(
        {"failed": 3}, {}, went=[PRIMARY] * 3
    ),
    "nothing_is_left": {"tasks": 0, "late": False},
    "uses_take_so_many_round_trips": {
        "read": 1,
        # BEGIN, the statement, COMMIT, and where the log is then.
        "write": 4,
        "write without replicas": 3,
        "read of what is there": 1,
        "read after a pause": 2,
    },
}
OF_DIALECT: dict[str, dict[str, Any]] = {
    "postgresql": {
        "statement_in_the_way_of_the_replay_moves_to_the_primary": found(
            {"failed": 1}, {}, went=PRIMARY
        )
    },
    "mysql": {"replica_is_not_written_to": {"refused": 1792}},
}
WAITED = [PRIMARY, REPLICA]
OF_MYSQL: dict[str, Any] = {
    "write_is_waited_for_wherever_its_gtid_is": {
        "another interval": WAITED,
        "end of another interval": WAITED,
        "another tag": WAITED,
        "gap": WAITED,
    },
    "write_without_a_gtid_is_read_from_the_primary": {
        "ON_PERMISSIVE": REPLICA,
        "OFF_PERMISSIVE": PRIMARY,
    },
}


def right(driver: str, server: str = "") -> dict[str, Any]:
    own = OF_MYSQL if server == "mysql" else {}
    return RIGHT | OF_DIALECT[DRIVERS[driver]["dialect"]] | own


@pytest.fixture
def run(
    routed: Callable[[str], Service],
    cluster_of: Callable[[str], Cluster],
    tmp_path: Path,
) -> Callable[..., Any]:
    """Run scenarios on a driver, with the variables of an empty database."""

    def run(driver: str, *scenarios: str, server: str = "", **variables: str) -> Any:
        cluster = cluster_of(server or usual_server(driver))
        name = f"db_{tmp_path.name.lower()}"
        cluster.database(name)

        def plain(node: Node) -> str:
            return make_url(node.url).set(database=name).render_as_string()

        urls = {
            "DATABASE_URL": plain(cluster.primary),
            "DATABASE_REPLICA_URLS": ",".join(map(plain, cluster.replicas)),
        }
        program = str(PROGRAMS / "replica_routing.py")
        changes = VARIABLES | urls | variables
        done = routed(driver).python(program, *scenarios, **changes)
        print(done.stderr)
        return done.stderr if done.returncode else json.loads(done.stdout)

    return run


@pytest.mark.parametrize(("driver", "server"), NETWORKED_ON)
def test_read_goes_where_it_should(
    run: Callable[..., Any], driver: str, server: str
) -> None:
    expected = right(driver, server)
    assert run(driver, *expected, server=server) == expected


class Protection(NamedTuple):
    scenario: str
    file: str
    code: str
    without: str
    drivers: tuple[str, ...] = ("asyncpg",)
    server: str = ""


GTIDS = "write_is_waited_for_wherever_its_gtid_is"
SILENCE = "silent_replica_delays_no_read"
PROTECTIONS = {
    "no statement for a replica whose probe is slow": Protection(
        SILENCE,
        "db/replicas/replica.py",
        "self.ready_until = min(self.ready_until, now + SUSPECT_AFTER_SECONDS)",
        "pass",
    ),
    "end of what a silent replica does": Protection(
        SILENCE,
        "db/engine/pool.py",
        "                shut_down(connection.driver_connection)",
        "                pass",
        drivers=("psycopg", "aiomysql"),
    ),
    "end of the queue in front of it": Protection(
        SILENCE, "db/engine/pool.py", "self.gate.reject_all()", "pass"
    ),
    "second try of a read that was rejected": Protection(
        SILENCE,
        "db/replicas/replica.py",
        "return monotonic() >= self.ready_until",
        "return False",
    ),
    "intervals that do not begin with 1": Protection(
        GTIDS,
        "db/replicas/position.py",
        'name if first == "1" else f"{name}.{first}"',
        "name",
        *(("asyncmy",), "mysql"),
    ),
    "tags": Protection(
        GTIDS,
        "db/replicas/position.py",
        "name = f\"{source}.{first.replace('_', '~')}\"",
        "break",
        *(("asyncmy",), "mysql"),
    ),
    "no position without GTIDs": Protection(
        "write_without_a_gtid_is_read_from_the_primary",
        "db/replicas/position.py",
        "@@GLOBAL.gtid_mode IN ('ON', 'ON_PERMISSIVE')",
        "TRUE",
        *(("asyncmy",), "mysql"),
    ),
    "ban": Protection(
        "ban_outlasts_a_probe_that_had_begun",
        "db/replicas/replica.py",
        "self._banned_until = now + BAN_SECONDS",
        "pass",
    ),
    "ban that lasts": Protection(
        "ban_outlasts_a_probe_that_had_begun",
        "db/replicas/replica.py",
        "elif now >= self._banned_until:",
        "else:",
    ),
    "one count for a session that moves": Protection(
        "killed_session_moves_to_the_primary",
        "db/replicas/router.py",
        "self.reads[replica.name] -= 1",
        "pass",
    ),
    "a second between two samples": Protection(
        "name_that_leads_to_a_standby_is_asked_once_a_second",
        "db/replicas/router.py",
        "            self._sampled_at = monotonic()\n",
        "",
    ),
    "a retired pool that stays": Protection(
        "name_that_leads_to_a_standby_is_asked_once_a_second",
        "db/replicas/router.py",
        'retire(engine, "the address of the primary leads to a standby")',
        "await engine.dispose()",
    ),
    "retry on the primary": Protection(
        "killed_session_moves_to_the_primary",
        "db/replicas/router.py",
        'self._move(target, "failed") if target.report_error(error) else None',
        "None",
    ),
    "primary for the rest of the session": Protection(
        "killed_session_moves_to_the_primary",
        "db/orm/reads.py",
        "        self._target = other\n",
        "",
    ),
    "one server for all statements of a session": Protection(
        "session_stays_on_one_server",
        "db/replicas/router.py",
        "if has_reached(current.position, goal):",
        "if False:",
    ),
    "no repeated write": Protection(
        "refusal_to_write_is_not_repeated_elsewhere",
        "db/replicas/replica.py",
        " or rejects_write(error)",
        "",
    ),
    "own writes within a session": Protection(
        "session_reads_what_its_client_has_written_since",
        "db/replicas/router.py",
        "if has_reached(current.position, goal):",
        "if True:",
    ),
    "own server of each statement": Protection(
        "statements_at_once_are_each_judged_by_their_own_server",
        "db/orm/reads.py",
        "be repeated once.\n            other = self._router.retry(target,",
        "be repeated once.\n            other = self._router.retry(self._target,",
    ),
    "no statement for a replica that was banned": Protection(
        "session_leaves_a_replica_that_was_banned",
        "db/replicas/router.py",
        "if current.unhealthy_reason:",
        "if False:",
    ),
    "log of a failover": Protection(
        "failover_is_logged",
        "db/replicas/failover.py",
        "if self._address:",
        "if False:",
        drivers=("asyncpg", "psycopg"),
    ),
    "connections of a failover": Protection(
        "failover_is_logged",
        "db/features.py",
        "[connect_to_primary, watch_primary]",
        "[connect_to_primary]",
    ),
    "session that only reads": Protection(
        "replica_is_not_written_to",
        "db/replicas/open.py",
        "fetch_one(connection, statement)",
        "pass",
        drivers=("asyncpg", "aiomysql"),
    ),
    "limit for the first statement of a connection": Protection(
        "connection_that_hangs_as_it_begins_delays_no_read",
        "db/replicas/failover.py",
        "loop.call_later(seconds, shut_down",
        "loop.call_later(3600, shut_down",
    ),
    "second query of a probe": Protection(
        "lost_probe_is_repeated",
        "db/replicas/replica.py",
        "if late or not error.connection_invalidated:",
        "if True:",
    ),
    "no wait that is hopeless": Protection(
        "no_read_waits_for_a_replica_that_is_far_behind",
        "db/replicas/replica.py",
        "self.lag_seconds > WAIT_SECONDS",
        "False",
    ),
    "position of a commit": Protection(
        "position_stays_with_its_task",
        "db/replicas/router.py",
        "add_written(position)",
        "pass",
    ),
    "no goal that no replica can reach": Protection(
        "commit_without_a_position_is_no_lag",
        "db/replicas/router.py",
        "add_written(position)",
        "add_written(position)\n        self._primary_at(position)",
    ),
}
CASES = [
    pytest.param(protection, driver, id=f"{name}, {driver}")
    for name, protection in PROTECTIONS.items()
    for driver in protection.drivers
]


@pytest.mark.parametrize(("protection", "driver"), CASES)
def test_scenario_can_fail(
    routed: Callable[[str], Service],
    run: Callable[..., Any],
    tmp_path: Path,
    protection: Protection,
    driver: str,
) -> None:
    scenario, *change, _, server = protection
    shop = routed(driver)
    source = shop.changed(tmp_path / "src", *change)
    variables = {"PYTHONPATH": f"{source}:{ROOT}"}
    result = run(driver, scenario, server=server, **variables)

    assert result != {scenario: right(driver, server)[scenario]}
