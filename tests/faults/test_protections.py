"""Each protection is taken out of a rendered service: one of its tests must fail."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.rendering import Answers
from tests.support.servers import Server
from tests.support.service import Service

pytestmark = pytest.mark.boot


class Protection(NamedTuple):
    file: str
    code: str
    without: str
    test: str
    drivers: tuple[str, ...] = ("asyncpg", "aiosqlite")
    # What is common to all drivers is taken out of two of them; what is a driver's or a
    # dialect's own, of each.
    answers: Mapping[str, Any] = {}


REPLICAS = {"with_replicas": True}
PROTECTIONS = {
    "fair queue": Protection(
        "db/pool.py",
        "waiter = self._waiting.popleft()",
        "waiter = self._waiting.pop()",
        "test_pool.py::test_200_requests_on_5_connections_are_served_in_order",
    ),
    "hand-over of a cancelled caller": Protection(
        "db/pool.py",
        "self._idle.append(waiter.result())",
        "pass",
        "test_pool.py::test_connection_handed_to_a_cancelled_caller_stays_in_the_pool",
    ),
    "turn after a failed connect": Protection(
        "db/pool.py",
        "self._pool.wake()",
        "pass",
        "test_pool.py::test_callers_in_line_have_their_turn_when_a_connect_fails",
    ),
    "disposal that waits for nobody": Protection(
        "db/pool.py",
        "self._pool.has_room = True",
        "pass",
        "test_pool.py::test_disposal_does_not_wait_for_a_place_that_is_promised",
    ),
    "early refusal": Protection(
        "db/pool.py",
        "if timeout and self._is_hopeless(timeout):",
        "if False:",
        "test_pool.py::test_line_that_is_too_long_is_refused_at_once",
    ),
    "commit before the answer": Protection(
        "db/session.py",
        'Depends(_write, scope="function")',
        "Depends(_write)",
        "test_sessions.py::test_what_fails_after_the_handler_is_no_success",
    ),
    "commit": Protection(
        "db/session.py",
        "await self.commit(session)",
        "pass",
        "test_sessions.py::test_write_is_there_when_the_answer_comes",
    ),
    "transaction": Protection(
        "db/session.py",
        "self.writes = transactional(engine)",
        "transactional(engine); self.writes = engine",
        "test_sessions.py::test_error_after_a_write_leaves_no_row",
    ),
    "read sessions execute no write": Protection(
        "db/session.py",
        "if not state.is_select:",
        "if False:",
        "test_sessions.py::test_read_session_refuses_to_write",
    ),
    "read sessions flush no write": Protection(
        "db/session.py",
        '@event.listens_for(ReadOnly, "before_flush")\n',
        "",
        "test_sessions.py::test_read_session_refuses_to_flush",
    ),
    "rollback of what was cancelled": Protection(
        "db/connect.py",
        'setattr(engine.dialect, "detect_autocommit_setting", _is_idle)',
        "pass",
        "test_sessions.py::test_cancelled_write_leaves_no_row_and_no_open_transaction",
        drivers=("aiosqlite",),
    ),
    "rollback of what was cancelled, on MySQL": Protection(
        "db/dialect.py",
        'setattr(engine.dialect, "detect_autocommit_setting", _is_idle)',
        "pass",
        "test_sessions.py::test_cancelled_write_leaves_no_row_and_no_open_transaction",
        drivers=("aiomysql", "asyncmy"),
    ),
    "lock of what was cancelled": Protection(
        "db/connect.py",
        'event.listen(engine.sync_engine, "invalidate", _release_lock)',
        "pass",
        "test_sessions.py"
        "::test_write_cancelled_within_a_statement_frees_what_it_locked",
        drivers=("aiosqlite",),
    ),
    "no COMMIT after an error": Protection(
        "db/transaction.py",
        '@event.listens_for(WholeSession, "before_commit")\n',
        "",
        "test_sessions.py::test_answer_is_true_when_a_handler_swallows_an_error",
        drivers=("asyncpg", "psycopg"),
    ),
    "savepoints": Protection(
        "db/transaction.py",
        'event.listen(engine.sync_engine, "rollback_savepoint", _mark_whole)',
        "pass",
        "test_sessions.py::test_error_in_a_savepoint_spoils_nothing_else",
    ),
    "no hasty refusal": Protection(
        "db/pool.py",
        "if self._handed_over < 2 * self.maxsize:",
        "if False:",
        "test_pool.py::test_first_connection_to_come_back_says_nothing_about_the_pace",
    ),
    "foreign keys": Protection(
        "db/connect.py",
        "PRAGMA foreign_keys=ON",
        "PRAGMA foreign_keys=OFF",
        "test_sessions.py::test_reference_to_nothing_is_409",
        drivers=("aiosqlite",),
    ),
    "true error of a refused connection": Protection(
        "db/watch.py",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "test_http.py::test_unreachable_database_is_503",
        drivers=("asyncpg",),
    ),
    "readiness": Protection(
        "probe.py",
        "if not health.was_reachable:",
        "if False:",
        "test_http.py::test_unreachable_database_is_503",
    ),
    "declared body limit": Protection(
        "middleware.py",
        "await receive() if declared <= limit else {}",
        "await receive()",
        "test_http.py::test_declared_body_over_the_limit_is_not_waited_for",
    ),
    "body limit": Protection(
        "middleware.py",
        "if max(declared, received) > limit:",
        "if False:",
        "test_http.py::test_body_over_the_limit_is_413",
    ),
    "no detail in a 500": Protection(
        "errors.py",
        '"This is a fault of the service."',
        "str(error)",
        "test_http.py::test_error_is_a_problem_that_tells_no_detail",
    ),
    "no value in a 422": Protection(
        "errors.py",
        '"message": item["msg"]',
        '"message": str(item)',
        "test_http.py::test_wrong_body_is_told_without_its_value",
    ),
    "request id in the log": Protection(
        "logs.py",
        "record.request_id = request_id.get()",
        "record.request_id = None",
        "test_http.py::test_log_is_json_with_the_id_of_the_request",
    ),
    "figures that fall by themselves": Protection(
        "db/metrics.py",
        "if pool.checkedout() or self.loans or self.refused:",
        "if False:",
        "test_metrics.py::test_session_is_counted_while_it_lasts",
        drivers=("aiosqlite",),
    ),
    "figures of the newest pool": Protection(
        "db/metrics.py",
        "if pool is not self._pool:",
        "if pool is self._pool:",
        "test_metrics.py::test_connection_of_a_disposed_pool_is_not_counted",
        drivers=("aiosqlite",),
    ),
    "place of a leak": Protection(
        "db/metrics.py",
        "walk_stack(getcurrent().parent.gr_frame)",
        "walk_stack(None)",
        "test_metrics.py::test_leak_is_told_with_its_request_and_place",
        drivers=("aiosqlite",),
    ),
    "request of a leak": Protection(
        "db/metrics.py",
        "context.run(logger.warning,",
        "Context().run(logger.warning,",
        "test_metrics.py::test_leak_is_told_with_its_request_and_place",
        drivers=("aiosqlite",),
    ),
    "budget check": Protection(
        "db/check.py",
        "if total > limit.most:",
        "if False:",
        "test_budget.py::test_budget_that_does_not_fit_is_told",
        drivers=("asyncpg", "aiomysql"),
    ),
    "start that can be refused": Protection(
        "db/remote.py",
        'os._exit(3 if os.environ.get("WORKER", "1") == "1" else 0)',
        "pass",
        "test_budget.py::test_budget_that_does_not_fit_can_end_the_start",
        drivers=("asyncpg",),
    ),
    "start that waits for no check": Protection(
        "db/remote.py",
        'if mode == "refuse":\n'
        "            await asyncio.wait({task}, timeout=START_SECONDS)",
        'if mode == "refuse":\n            await asyncio.wait({task})',
        "test_budget.py::test_start_does_not_wait_for_a_silent_server",
        drivers=("asyncpg",),
    ),
    "start without an answer": Protection(
        "db/remote.py",
        "except Exception as error:  # whatever it is, the service can start",
        "except ZeroDivisionError as error:",
        "test_budget.py::test_start_does_not_fail_when_nobody_can_tell",
        drivers=("asyncpg",),
    ),
    "one line for no database": Protection(
        "db/findings.py",
        "except DBAPIError as error:",
        "except ZeroDivisionError as error:",
        "test_doctor.py::test_doctor_tells_in_one_line_why_there_is_no_database",
        drivers=("asyncpg",),
    ),
    "position in the answer": Protection(
        "db/session.py",
        "seen.add(position)",
        "pass",
        "test_replicas.py::test_write_is_answered_with_its_position",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of the header": Protection(
        "consistency.py",
        'from_token(client.headers.get(HEADER, ""))',
        "{}",
        "test_replicas.py::test_client_has_seen_what_header_and_cookie_say",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of the cookie": Protection(
        "consistency.py",
        'from_token(client.cookies.get(COOKIE, ""))',
        "{}",
        "test_replicas.py::test_client_has_seen_what_header_and_cookie_say",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "the greater of both": Protection(
        "db/position.py",
        "domain: max(one.get(domain, 0), other.get(domain, 0))",
        "domain: one.get(domain, other.get(domain, 0))",
        "test_replicas.py::test_client_has_seen_what_header_and_cookie_say",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of one request only": Protection(
        "consistency.py",
        "SEEN.set(seen)",
        "(earlier := SEEN.get()) and seen.add(earlier.position); SEEN.set(seen)",
        "test_replicas.py::test_request_does_not_know_what_another_has_seen",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "replica that is none": Protection(
        "db/replica.py",
        "if not found.is_replica:",
        "if False:",
        "test_replicas.py::test_replica_that_is_a_primary_is_not_read_from",
        drivers=("asyncpg", "aiomysql"),
        answers=REPLICAS,
    ),
    "drift check": Protection(
        "models.py",
        'Index(None, "created_at", "id"),',
        "",
        "test_migrations.py::test_models_and_migrations_agree",
    ),
    "conditional payment": Protection(
        "payments.py",
        ".where(Order.id == order_id, Order.status == OrderStatus.NEW)",
        ".where(Order.id == order_id)",
        "test_payments.py::test_of_two_payments_at_once_one_is_409",
    ),
}
CASES = [
    pytest.param(protection, driver, id=f"{name}, {driver}")
    for name, protection in PROTECTIONS.items()
    for driver in protection.drivers
]


@pytest.mark.parametrize(("protection", "driver"), CASES)
def test_protection_is_proved_by_a_test_that_can_fail(
    rendered: Callable[[Answers], Service],
    server_of: Callable[[str], Server],
    tmp_path: Path,
    protection: Protection,
    driver: str,
) -> None:
    shop = rendered({"driver": driver, **protection.answers})
    source = shop.changed(
        tmp_path / "src", protection.file, protection.code, protection.without
    )
    needs_server = driver != "aiosqlite"
    variables = {"DATABASE_URL": server_of(driver).url} if needs_server else {}
    done = shop.command(
        "python",
        "-m",
        "pytest",
        "-q",
        f"tests/{protection.test}",
        PYTHONPATH=source,
        **variables,
    )

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^\d+ failed", done.stdout, re.MULTILINE), done.stdout
