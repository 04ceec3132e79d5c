"""Each protection is taken out of a rendered service: one of its tests must fail."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.rendered_tests import IMPORTED, all_tests
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


# After an error in a greenlet Python 3.11 may not parse the source that a traceback
# would show, and pytest would end without a result.
OPTIONS = ("-q", "--tb=native", IMPORTED)
REPLICAS = {"with_replicas": True}
PROTECTIONS = {
    "fair queue": Protection(
        "db/engine/gate.py",
        "waiter = self._waiters.popleft()",
        "waiter = self._waiters.pop()",
        "test_pool.py::test_200_requests_on_5_connections_are_served_in_order",
    ),
    "answers that have come while the process was paused": Protection(
        "db/engine/timing.py",
        "if is_late and not self._was_late:",
        "if False:",
        "test_timing.py::test_answers_are_read_after_a_pause_of_the_process",
    ),
    "ticks of a process that is always late": Protection(
        "db/engine/timing.py",
        "if is_late and not self._was_late:",
        "if is_late:",
        "test_timing.py::test_ticker_of_a_process_that_is_always_late_ticks",
        drivers=("asyncpg",),
    ),
    "filter of every statement": Protection(
        "db/orm/statements.py",
        " and not _EVENTS.do_orm_execute",
        "",
        "test_reads.py::test_filter_of_every_statement_holds_each_time",
    ),
    "all rows of a statement that yields parts": Protection(
        "db/orm/statements.py",
        '"yield_per": None, "stream_results": False, ',
        "",
        "test_reads.py::test_read_has_all_rows_of_a_statement_that_yields_parts",
        drivers=("asyncpg", "psycopg"),
    ),
    "record with keys that are no texts": Protection(
        "web/logs.py",
        "except (TypeError, ValueError):  # a key",
        "except KeyError:  # a key",
        "test_logs.py::test_error_and_extra_are_fields_of_one_line",
        drivers=("asyncpg",),
    ),
    "place of a connection that is not reset": Protection(
        "db/engine/validation.py",
        "            self.watchdog.not_reset.add(connection)\n",
        "            raise\n",
        "test_watchdog.py"
        "::test_connection_whose_isolation_level_is_not_reset_is_replaced",
        drivers=("asyncpg", "psycopg"),
    ),
    "cancellation while a level is reset": Protection(
        "db/engine/validation.py",
        "                task.cancel()\n",
        "                pass\n",
        "test_watchdog.py"
        "::test_connection_whose_isolation_level_is_not_reset_is_replaced",
        drivers=("psycopg", "asyncmy"),
    ),
    "replacement of a connection that is not reset": Protection(
        "db/engine/validation.py",
        "(failed or connection in self._watchdog.not_reset)",
        "failed",
        "test_watchdog.py"
        "::test_connection_whose_isolation_level_is_not_reset_is_replaced",
        drivers=("psycopg",),
    ),
    "isolation level of one transaction": Protection(
        "db/engine/dialect.py",
        "        dbapi_connection.cursor().execute(level)\n",
        "",
        "test_sessions.py::test_isolation_level_ends_with_its_write",
        drivers=("aiomysql", "asyncmy"),
    ),
    "permit of a cancelled caller": Protection(
        "db/engine/gate.py",
        "self.release()  # got a permit",
        "pass  # got a permit",
        "test_pool.py::test_permit_of_a_cancelled_caller_goes_to_the_next",
        drivers=("aiosqlite",),
    ),
    "free permit of a cancelled caller": Protection(
        "db/engine/gate.py",
        "self.release()  # got a permit",
        "pass  # got a permit",
        "test_pool.py::test_permit_of_a_cancelled_caller_stays_free",
        drivers=("aiosqlite",),
    ),
    "queue without a cancelled caller": Protection(
        "db/engine/gate.py",
        "self._waiters.remove(waiter)",
        "pass",
        "test_pool.py::test_caller_that_is_cancelled_in_the_queue_gets_no_permit",
        drivers=("aiosqlite",),
    ),
    "permit from another thread": Protection(
        "db/engine/gate.py",
        "loop.call_soon_threadsafe(self._pass_on)",
        "self._pass_on()",
        "test_pool.py::test_permit_that_another_thread_releases_wakes_a_caller",
        drivers=("aiosqlite",),
    ),
    "rejection of all": Protection(
        "db/engine/gate.py",
        "            _reject(waiter, Aborted())",
        "            pass",
        "test_pool.py::test_callers_that_are_rejected_leave_the_queue",
        drivers=("aiosqlite",),
    ),
    "early rejection": Protection(
        "db/engine/gate.py",
        "if self.predicted_wait(seconds) > seconds:",
        "if False:",
        "test_pool.py::test_queue_that_is_too_long_rejects_at_once",
        drivers=("aiosqlite",),
    ),
    "no hasty rejection": Protection(
        "db/engine/gate.py",
        "self._passed < 2 * self.permits",
        "False",
        "test_pool.py::test_first_release_says_nothing_about_the_pace",
        drivers=("aiosqlite",),
    ),
    "permit after a failed connect": Protection(
        "db/engine/pool.py",
        "                self.gate.release()\n                raise",
        "                raise",
        "test_pool.py::test_callers_in_the_queue_have_their_turn_when_a_connect_fails",
    ),
    "permit at checkin": Protection(
        "db/engine/pool.py",
        "gate.release()\n\n",
        "pass\n\n",
        "test_pool.py::test_full_pool_rejects_when_the_time_is_up",
    ),
    "permit of a lost connection": Protection(
        "db/engine/pool.py",
        "gate.release()\n\n",
        "pass\n\n",
        "test_pool.py::test_connection_that_is_garbage_collected_gives_its_permit_back",
    ),
    "permit after an overflow connection is closed": Protection(
        "db/engine/pool.py",
        "        try:\n            super()._do_return_conn(record)",
        '        if gate := record.record_info.pop("gate", None):\n'
        "            gate.release()\n"
        "        try:\n            super()._do_return_conn(record)",
        "test_pool.py::test_permit_is_free_after_an_overflow_connection_is_closed",
        drivers=("asyncpg", "aiosqlite"),
    ),
    "deadline of a probe": Protection(
        "db/engine/pool.py",
        "min(checkout_deadline.get(), began + self.timeout())",
        "began + self.timeout()",
        "test_pool.py::test_checkout_keeps_the_deadline_of_its_caller",
        drivers=("aiosqlite",),
    ),
    "limit of the queries of each connect": Protection(
        "db/engine/validation.py",
        '"connect", self._before_queries, insert=True',
        '"first_connect", self._before_queries, insert=True',
        "test_watchdog.py::test_queries_of_each_connect_are_bounded",
        drivers=("asyncpg", "aiomysql"),
    ),
    "check-in without an await": Protection(
        "db/engine/validation.py",
        "entry.invalidate(soft=True)",
        "entry.invalidate()",
        "test_watchdog.py::test_connection_that_is_not_trusted_is_closed_without_waiting",
        drivers=("asyncpg", "aiomysql"),
    ),
    "no COMMIT within a statement": Protection(
        "db/engine/watchdog.py",
        "            raise exc.IllegalStateChangeError(UNAWAITED)",
        "            pass",
        "test_watchdog.py::test_session_that_ends_within_a_statement_closes_its_connection",
        drivers=("asyncpg", "aiomysql"),
    ),
    "limit of each of two statements": Protection(
        "db/engine/watchdog.py",
        "key = object()",
        "key = connection",
        "test_watchdog.py::test_each_of_two_statements_at_once_is_bounded",
        drivers=("asyncpg", "asyncmy"),
    ),
    "session that no block of its own ends": Protection(
        "db/orm/writes.py",
        "    async def __aexit__(self, *_: object) -> None:\n        return\n",
        "    pass\n",
        "test_session_ends.py::test_block_around_a_session_does_not_end_it",
        drivers=("aiosqlite",),
    ),
    "session that is not closed": Protection(
        "db/orm/writes.py",
        "if self.in_transaction():",
        "if False:",
        "test_session_ends.py::test_session_is_not_closed_with_what_it_has_written",
        drivers=("aiosqlite",),
    ),
    "row that is gone": Protection(
        "db/errors.py",
        "isinstance(error, StaleDataError)",
        "isinstance(error, ())",
        "test_sessions.py::test_object_whose_row_is_gone_is_409",
        drivers=("aiosqlite",),
    ),
    "upsert row by row": Protection(
        "db/engine/dialect.py",
        'if "%" not in statement',
        'if "" in statement',
        "test_sessions.py::test_upsert_of_many_rows",
        drivers=("aiomysql", "asyncmy"),
    ),
    "code of a websocket": Protection(
        "web/errors/unhandled.py",
        'if scope["type"] == "websocket":',
        "if False:",
        "test_streams.py::test_websocket_whose_handler_fails_is_closed_with_a_code",
        drivers=("aiosqlite",),
    ),
    "bound of a check of the service": Protection(
        "web/health.py",
        "async with asyncio.timeout(PROBE_SECONDS):",
        "if True:",
        "test_http.py::test_readiness_asks_what_is_the_service_s_own",
        drivers=("aiosqlite",),
    ),
    "connection of a session that has ended": Protection(
        "db/orm/writes.py",
        "        connection.close()\n",
        "",
        "test_session_ends.py::test_connection_that_a_task_gets_after_the_end_is_returned",
        drivers=("aiomysql", "aiosqlite"),
    ),
    "names of replicas behind one pooler": Protection(
        "db/replicas/settings.py",
        'f"{each.name}/{each.database}" if shared[each.name] > 1 else each.name: each',
        "each.name: each",
        "test_replicas.py::test_replicas_behind_one_pooler_have_names_of_their_own",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "turn of a host": Protection(
        "db/replicas/hosts.py",
        "if hosts[0] is first:",
        "if True:",
        "test_connects.py::test_hosts_take_turns_when_connects_fail_at_once",
        drivers=("psycopg",),
        answers=REPLICAS,
    ),
    "interrupted COMMIT of a bulk insert": Protection(
        "db/orm/commits.py",
        "asyncio.CancelledError):\n            self.interrupted += 1\n        error =",
        "asyncio.CancelledError):\n            pass\n        error =",
        "test_bulk.py::test_commit_of_a_bulk_insert_that_is_interrupted_is_counted",
    ),
    "permit that is released once": Protection(
        "db/engine/pool.py",
        'record.record_info.pop("gate", None)',
        'record.record_info.get("gate")',
        "test_pool.py::test_permit_is_released_once_when_a_connection_cannot_be_replaced",
    ),
    "no connection between statements": Protection(
        "db/orm/statements.py",
        "with Session(bind, autoflush=False) as session:",
        'for session in [bind.__dict__.setdefault("kept", Session(bind))]:',
        "test_pool.py::test_read_session_holds_no_connection_between_statements",
    ),
    "no connection between statements that are kept": Protection(
        "db/orm/statements.py",
        "with bind.connect() as connection:",
        'for connection in [bind.__dict__.setdefault("kept", bind.connect())]:',
        "test_pool.py::test_read_session_holds_no_connection_between_statements",
    ),
    "commit before the answer": Protection(
        "db/database.py",
        'Depends(_write, scope="function")',
        "Depends(_write)",
        "test_sessions.py::test_what_fails_after_the_handler_is_no_success",
    ),
    "commit": Protection(
        "db/database.py",
        "await session.commit()",
        "pass",
        "test_service.py::test_write_is_there_when_the_answer_comes",
    ),
    "transaction": Protection(
        "db/database.py",
        "self.writes = with_transactions(engine, begin_by)",
        "with_transactions(engine, begin_by); self.writes = engine",
        "test_service.py::test_error_after_a_write_leaves_no_row",
    ),
    "read sessions execute no write": Protection(
        "db/orm/guard.py",
        "    if not _READS.match(sql):",
        "    if False:",
        "test_sessions.py::test_read_session_refuses_to_write",
    ),
    "reads take no lock and keep no state": Protection(
        "db/orm/guard.py",
        "if not (found := _REJECTED.search(sql)):",
        "if not (found := None):",
        "test_reads.py::test_read_session_refuses_what_does_not_only_read",
        drivers=("asyncpg", "aiomysql", "aiosqlite"),
    ),
    "reads lock nothing where SQL has no lock": Protection(
        "db/orm/guard.py",
        "if OMITS_LOCKS and compiled and not found:",
        "if False:",
        "test_reads.py::test_read_session_refuses_what_does_not_only_read",
        drivers=("aiosqlite",),
    ),
    "columns by their attribute": Protection(
        "db/orm/statements.py",
        'if "entity" in columns[0]:',
        "if False:",
        "test_reads.py::test_rows_are_the_same_however_a_statement_is_executed",
    ),
    "get() on a statement that is kept": Protection(
        "db/orm/statements.py",
        "@lru_cache(maxsize=500)\n",
        "",
        "test_reads.py::test_get_builds_no_statement_twice",
    ),
    "end of a session for writing": Protection(
        "db/orm/writes.py",
        "session.sync_session.__class__ = EndedSession",
        "pass",
        "test_session_ends.py",
    ),
    "end of a session for reading": Protection(
        "db/orm/reads.py",
        "        self._ended = True\n",
        "        pass\n",
        "test_session_ends.py",
    ),
    "end before the answer": Protection(
        "db/database.py",
        'Depends(_snapshot, scope="function")',
        "Depends(_snapshot)",
        "test_session_ends.py",
    ),
    "read sessions keep no object": Protection(
        "db/orm/statements.py",
        "with Session(bind, autoflush=False) as session:",
        'for session in [bind.__dict__.setdefault("kept", Session(bind))]:',
        "test_sessions.py::test_change_of_an_object_that_was_read_reaches_no_database",
    ),
    "rollback of what was cancelled": Protection(
        "db/engine/driver.py",
        "return not dbapi_conn.driver_connection.in_transaction",
        "return True",
        "test_sessions.py::test_cancelled_write_leaves_no_row_and_no_open_transaction",
        drivers=("aiosqlite",),
    ),
    "rollback of what was cancelled, on MySQL": Protection(
        "db/engine/driver.py",
        "return is_idle(dbapi_conn)",
        "return True",
        "test_sessions.py::test_cancelled_write_leaves_no_row_and_no_open_transaction",
        drivers=("aiomysql", "asyncmy"),
    ),
    "lock of what was cancelled": Protection(
        "db/engine/driver.py",
        'event.listen(engine, "invalidate", _release_lock)',
        "pass",
        "test_sessions.py::test_write_cancelled_within_a_statement_frees_what_it_locked",
        drivers=("aiosqlite",),
    ),
    "no COMMIT after an error": Protection(
        "db/orm/commits.py",
        'not connection.invalidated and connection.info.get("failed")',
        "False",
        "test_sessions.py::test_answer_is_true_when_a_handler_swallows_an_error",
        drivers=("asyncpg", "psycopg"),
    ),
    "savepoints": Protection(
        "db/orm/commits.py",
        'event.listen(engine.sync_engine, "rollback_savepoint", _clear_failed)',
        "pass",
        "test_sessions.py::test_error_in_a_savepoint_spoils_nothing_else",
    ),
    "no COMMIT of a bulk insert after an error": Protection(
        "db/orm/commits.py",
        'not connection.invalidated and connection.info.get("failed")',
        "False",
        "test_bulk.py::test_bulk_insert_in_which_a_statement_has_failed_inserts_no_row",
    ),
    "outcome of a COMMIT that is lost": Protection(
        "db/orm/commits.py",
        "if is_rolled_back(error):",
        "if True:",
        "test_commits.py::test_commit_that_is_lost_is_an_unknown_outcome",
        drivers=("asyncpg", "aiomysql"),
    ),
    "part that was committed": Protection(
        "db/orm/commits.py",
        "if fault and fault != FaultKind.OUTCOME_UNKNOWN:",
        "if False:",
        "test_commits.py::test_error_after_a_commit_does_not_say_that_nothing_was_changed",
    ),
    "guard of an export": Protection(
        "db/bulk.py",
        ", **GUARDED",
        "",
        "test_bulk.py::test_export_refuses_to_write",
        drivers=("aiomysql", "aiosqlite"),
    ),
    "exports at once": Protection(
        "db/database.py",
        "asyncio.Semaphore(settings.exports_at_once)",
        "asyncio.Semaphore(100)",
        "test_bulk.py::test_exports_leave_most_of_the_pool_to_others",
    ),
    "place of an export": Protection(
        "db/bulk.py",
        "exports.release()",
        "pass",
        "test_bulk.py::test_export_that_takes_too_long_ends_and_frees_its_place",
    ),
    "time of an export": Protection(
        "db/bulk.py",
        "except TimeoutError as error:",
        "except ZeroDivisionError as error:",
        "test_bulk.py::test_export_that_takes_too_long_ends_and_frees_its_place",
    ),
    "foreign keys": Protection(
        "db/engine/driver.py",
        "PRAGMA foreign_keys=ON",
        "PRAGMA foreign_keys=OFF",
        "test_sessions.py::test_reference_to_nothing_is_409",
        drivers=("aiosqlite",),
    ),
    "true error of a refused connection": Protection(
        "db/engine/validation.py",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "test_service.py::test_unreachable_database_is_503",
        drivers=("asyncpg",),
    ),
    "readiness": Protection(
        "web/health.py",
        "if missing:",
        "if False:",
        "test_service.py::test_unreachable_database_is_503",
    ),
    "readiness by any connection": Protection(
        "db/database.py",
        'event.listen(engine.sync_engine, "connect", self._note_reached)',
        "pass",
        "test_connects.py::test_worker_that_has_served_is_ready_without_its_database",
        drivers=("asyncpg", "aiosqlite"),
    ),
    "file of a cancelled connect": Protection(
        "db/engine/driver.py",
        "connection.stop()",
        "pass",
        "test_connects.py::test_file_of_a_cancelled_connect_is_closed",
        drivers=("aiosqlite",),
    ),
    "connection whose setup fails": Protection(
        "db/engine/driver.py",
        "    except BaseException as error:\n        connection.close()\n",
        "    except BaseException as error:\n",
        "test_connects.py::test_connection_whose_setup_fails_is_closed",
        drivers=("asyncmy",),
    ),
    "connection of a cancelled caller": Protection(
        "db/replicas/hosts.py",
        "        if not is_primary:\n            dialect",
        "        if False:\n            dialect",
        "test_connects.py::test_connection_that_is_not_taken_is_closed",
        drivers=("asyncpg", "aiomysql", "asyncmy"),
        answers=REPLICAS,
    ),
    "reason of a move": Protection(
        "db/engine/validation.py",
        'connection.info["moved"] = True',
        "pass",
        "test_connects.py::test_rejected_write_counts_as_a_move",
        drivers=("psycopg", "asyncmy"),
    ),
    "limit of a declared body": Protection(
        "web/middleware.py",
        "limit = settings.max_body_bytes",
        "limit = 10**9",
        "test_http.py::test_declared_body_over_the_limit_is_not_waited_for",
    ),
    "limit of a body": Protection(
        "web/middleware.py",
        "limit = settings.max_body_bytes",
        "limit = 10**9",
        "test_http.py::test_body_over_the_limit_is_413",
    ),
    "problem document for a body": Protection(
        "web/middleware.py",
        "await self.send(message)",
        "await super().send_with_limit(message)",
        "test_http.py::test_body_over_the_limit_is_413",
    ),
    "no detail in a 500": Protection(
        "web/errors/unhandled.py",
        "answer = problem(500, FAULT)",
        "answer = problem(500, str(error))",
        "test_http.py::test_error_is_a_problem_without_its_detail",
    ),
    "500 within other middleware": Protection(
        "main.py",
        "for each in INNER_MIDDLEWARE),\n            UNHANDLED_ERRORS,\n",
        "for each in INNER_MIDDLEWARE),\n",
        "test_http.py::test_unhandled_error_has_the_headers_of_other_answers",
        drivers=("aiosqlite",),
    ),
    "500 for an error of a middleware": Protection(
        "main.py",
        "            UNHANDLED_ERRORS,\n            *map",
        "            *map",
        "test_http.py::test_unhandled_error_leaves_the_connection_open",
        drivers=("aiosqlite",),
    ),
    "no traceback after the answer": Protection(
        "web/errors/unhandled.py",
        "error = _handled(raised) or raised",
        "error = raised",
        "test_streams.py::test_fault_after_the_answer_has_begun_is_logged_without_values",
        drivers=("aiosqlite",),
    ),
    "message that cannot be read": Protection(
        "web/errors/unhandled.py",
        "if _cannot_be_read(error):",
        "if False:",
        "test_streams.py::test_websocket_message_that_cannot_be_read_is_no_error_of_the_service",
        drivers=("aiosqlite",),
    ),
    "rejection of an open websocket": Protection(
        "web/errors/handlers.py",
        "isinstance(connection, WebSocket)\n        and connection.application_state",
        "None\n        and connection.application_state",
        "test_streams.py::test_http_exception_closes_a_websocket_with_its_detail",
        drivers=("aiosqlite",),
    ),
    "problem document in ASCII": Protection(
        "web/errors/__init__.py",
        'json.dumps(content, separators=(",", ":"))',
        "json.dumps(content, ensure_ascii=False)",
        "test_http.py::test_detail_that_is_no_unicode_has_its_status",
        drivers=("aiosqlite",),
    ),
    "faults of a dependency": Protection(
        "web/openapi.py",
        "any(map(_has_database, found))",
        "_has_database(dependant)",
        "test_api_document.py::test_dependency_with_the_request_may_open_any_session",
        drivers=("aiosqlite",),
    ),
    "stream that is cut": Protection(
        "web/errors/unhandled.py",
        "if has_begun and not has_ended:",
        "if False:",
        "test_http.py::test_error_within_an_answer_reaches_the_server",
        drivers=("aiosqlite",),
    ),
    "error after the answer": Protection(
        "web/errors/unhandled.py",
        "if has_begun and not has_ended:",
        "if has_begun:",
        "test_http.py::test_unhandled_error_leaves_the_connection_open",
        drivers=("aiosqlite",),
    ),
    "error of the event loop": Protection(
        "db/engine/validation.py",
        "isinstance(error, (RuntimeError, OSError))",
        "isinstance(error, ())",
        "test_watchdog.py::test_error_of_the_event_loop_is_a_lost_connection",
        drivers=("asyncpg", "aiomysql"),
    ),
    "no value in a 422": Protection(
        "web/errors/handlers.py",
        '"message": item["msg"]',
        '"message": str(item)',
        "test_service.py::test_wrong_body_is_a_problem_without_its_value",
    ),
    "rejected before the handler": Protection(
        "web/overload.py",
        "if not (wait := pool.excess_wait()):",
        "if pool:",
        "test_overload.py::test_rejected_before_body_and_dependencies",
    ),
    "statements of the example, built once": Protection(
        "orders.py",
        "@cache\n",
        "",
        "test_example.py::test_request_of_the_example_builds_no_statement",
    ),
    "predicted wait of a rejected checkout": Protection(
        "web/errors/handlers.py",
        'getattr(error, "retry_seconds", 1)',
        "1",
        "test_overload.py::test_rejected_checkout_predicts_the_wait_as_well",
    ),
    "bounded number of held answers": Protection(
        "web/overload.py",
        "if self._held < MAX_HELD:",
        "if True:",
        "test_overload.py::test_answers_of_a_bounded_number_of_clients_are_held",
    ),
    "no line for each rejected request": Protection(
        "web/overload.py",
        "exchange.route, exchange.has_line = route, False",
        "exchange.route = route",
        "test_overload.py::test_rejections_are_counted_in_one_line",
    ),
    "methods of other routes are no overload": Protection(
        "web/overload.py",
        "if route and path_params is not None:",
        "if route:",
        "test_overload.py::test_routes_without_a_session_go_on",
    ),
    "order of routes": Protection(
        "web/routes.py",
        "not route.convertors and is_first",
        "not route.convertors",
        "test_routes.py::test_answers_are_those_of_the_router",
    ),
    "route classes of an owner": Protection(
        "web/routes.py",
        "break  # its matches() is yours",
        "continue  # its matches() is yours",
        "test_routes.py::test_answers_are_those_of_the_router",
    ),
    "bounded labels": Protection(
        "web/request_metrics.py",
        'method if method in METHODS else "other",',
        "method,",
        "test_request_metrics.py::test_requests_are_counted_by_route_and_status",
    ),
    "quiet probes": Protection(
        "web/middleware.py",
        "logging.DEBUG if fine and self.path in PROBES else logging.INFO",
        "logging.INFO",
        "test_logs.py::test_probes_have_a_line_if_they_fail",
    ),
    "lines for every handler": Protection(
        "web/logs.py",
        "len(handlers) != 1 or ",
        "",
        "test_logs.py::test_every_handler_gets_the_lines_of_requests",
    ),
    "request id in the log": Protection(
        "web/logs.py",
        '{"request_id": request_id.get}',
        "{}",
        "test_service.py::test_log_is_json_with_the_id_of_the_request",
    ),
    "metrics that fall by themselves": Protection(
        "db/engine/metrics.py",
        "return bool(in_use or pool.rejected)",
        "return False",
        "test_metrics.py::test_session_is_counted_while_it_lasts",
        drivers=("aiosqlite",),
    ),
    "metrics of the newest pool": Protection(
        "db/engine/metrics.py",
        "pool: Any = engine.pool",
        'pool: Any = self.__dict__.setdefault("first", engine.pool)',
        "test_metrics.py::test_connection_of_a_disposed_pool_is_not_counted",
        drivers=("aiosqlite",),
    ),
    "place of a leak": Protection(
        "db/engine/pool.py",
        "walk_stack(getcurrent().parent.gr_frame)",
        "walk_stack(None)",
        "test_metrics.py::test_leak_is_logged_with_its_request_and_place",
        drivers=("aiosqlite",),
    ),
    "request of a leak": Protection(
        "db/engine/metrics.py",
        "leak.context.run(logger.warning, text, facts, extra=facts)",
        "logger.warning(text, facts, extra=facts)",
        "test_metrics.py::test_leak_is_logged_with_its_request_and_place",
        drivers=("aiosqlite",),
    ),
    "budget check": Protection(
        "db/doctor/checks.py",
        "if total > limit.most:",
        "if False:",
        "test_budget.py::test_budget_that_does_not_fit_is_logged",
        drivers=("asyncpg", "aiomysql"),
    ),
    "start that can be refused": Protection(
        "db/doctor/startup_check.py",
        'os._exit(3 if os.environ.get("WORKER", "1") == "1" else 0)',
        "pass",
        "test_budget.py::test_budget_that_does_not_fit_can_end_the_start",
        drivers=("asyncpg",),
    ),
    "start that waits for no check": Protection(
        "db/doctor/startup_check.py",
        'if mode == "refuse":\n'
        "            await asyncio.wait({task}, timeout=START_SECONDS)",
        'if mode == "refuse":\n            await asyncio.wait({task})',
        "test_budget.py::test_start_does_not_wait_for_a_silent_server",
        drivers=("asyncpg",),
    ),
    "start without an answer": Protection(
        "db/doctor/startup_check.py",
        "except Exception as error:  # whatever it is, the service can start",
        "except ZeroDivisionError as error:",
        "test_budget.py::test_start_does_not_fail_when_the_budget_cannot_be_checked",
        drivers=("asyncpg",),
    ),
    "one line for no database": Protection(
        "db/doctor/report.py",
        "except DBAPIError as error:",
        "except ZeroDivisionError as error:",
        "test_doctor.py::test_doctor_says_in_one_line_why_there_is_no_database",
        drivers=("asyncpg",),
    ),
    "position in the answer": Protection(
        "db/replicas/router.py",
        "add_written(position)",
        "pass",
        "test_replicas.py::test_write_is_answered_with_its_position",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of the header": Protection(
        "web/read_your_writes.py",
        'decode_token(client.headers.get(HEADER, ""))',
        "{}",
        "test_replicas.py::test_watermark_of_a_request_is_that_of_header_and_cookie",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of the cookie": Protection(
        "web/read_your_writes.py",
        'decode_token(client.cookies.get(COOKIE, ""))',
        "{}",
        "test_replicas.py::test_watermark_of_a_request_is_that_of_header_and_cookie",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "the greater of both": Protection(
        "db/replicas/watermark.py",
        "domain: max(one.get(domain, 0), other.get(domain, 0))",
        "domain: one.get(domain, other.get(domain, 0))",
        "test_replicas.py::test_watermark_of_a_request_is_that_of_header_and_cookie",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "position of one request only": Protection(
        "web/read_your_writes.py",
        "current_watermark.set(watermark)",
        "(seen := current_watermark.get()) and watermark.add_written(seen.position)\n"
        "        current_watermark.set(watermark)",
        "test_replicas.py::test_request_does_not_have_the_watermark_of_another",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "unknown outcome of a write": Protection(
        "db/database.py",
        "self.router.may_have_committed()",
        "pass",
        "test_replicas.py::test_write_of_unknown_outcome_is_looked_for_on_the_primary",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "unknown outcome of a bulk insert": Protection(
        "db/bulk.py",
        "database.router.may_have_committed()",
        "pass",
        "test_replicas.py::test_write_of_unknown_outcome_is_looked_for_on_the_primary",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "replica that is none": Protection(
        "db/replicas/replica.py",
        "if not health.is_replica:",
        "if False:",
        "test_replicas.py::test_replica_that_is_a_primary_is_not_read_from",
        drivers=("asyncpg", "aiomysql"),
        answers=REPLICAS,
    ),
    "page by an index": Protection(
        "db/orm/keyset.py",
        "at <= last[0], tuple_(*self.columns) < tuple_(*last)",
        "tuple_(*self.columns) < tuple_(*last)",
        "test_example.py::test_far_page_reads_few_rows",
        drivers=("aiomysql", "asyncmy"),
    ),
    "end of a snapshot": Protection(
        "db/orm/reads.py",
        "if self._ended:  # meanwhile",
        "if False:  # meanwhile",
        "test_snapshots.py::test_statement_that_outlives_its_snapshot_gets_no_connection",
    ),
    "words of a rejected certificate": Protection(
        "db/errors.py",
        " and not isinstance(root, OSError)",
        "",
        "test_sessions.py::test_error_of_a_certificate_keeps_its_words",
    ),
    "faults of a TaskGroup": Protection(
        "web/errors/handlers.py",
        "    ExceptionGroup: _group_error,\n",
        "",
        "test_sessions.py::test_fault_of_a_task_group_has_its_answer",
    ),
    "cancellation of psycopg": Protection(
        "db/engine/watchdog.py",
        "if isinstance(error.__context__, asyncio.CancelledError):",
        "if False:",
        "test_sessions.py::test_statement_cancelled_at_any_step_is_cancelled",
        drivers=("psycopg",),
    ),
    "no formula in a file": Protection(
        "db/bulk.py",
        "text.startswith(FORMULA)",
        "False",
        "test_bulk.py::test_file_of_csv_has_no_formula_and_any_name",
    ),
    "scrape while a process starts": Protection(
        "web/metrics.py",
        "suppress(struct.error)",
        "suppress()",
        "test_request_metrics.py"
        "::test_file_of_a_process_that_has_just_started_is_waited_for",
        drivers=("aiosqlite",),
    ),
    "statement after a failure": Protection(
        "db/orm/commits.py",
        'event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_failed)',
        "pass",
        "test_commits.py::test_no_statement_follows_one_that_has_failed",
        drivers=("asyncpg", "aiomysql", "aiosqlite"),
    ),
    "savepoint after a failure": Protection(
        "db/orm/commits.py",
        'event.listen(engine.sync_engine, "before_cursor_execute", _refuse_if_failed)',
        "pass",
        "test_commits.py::test_later_savepoint_does_not_mend_what_has_failed",
        drivers=("aiomysql", "aiosqlite"),
    ),
    "another connection within a bulk insert": Protection(
        "db/orm/commits.py",
        "if self._begun.setdefault(connection, begun) is not begun:",
        "if False:",
        "test_commits.py::test_bulk_insert_does_not_go_on_in_another_connection",
    ),
    "connection that could not begin": Protection(
        "db/orm/commits.py",
        "            connection.close()\n            raise\n",
        "            raise\n",
        "test_commits.py::test_connection_that_could_not_begin_executes_nothing",
        drivers=("asyncpg", "aiomysql", "aiosqlite"),
    ),
    "cancellation after a commit": Protection(
        "db/orm/commits.py",
        "if isinstance(error, asyncio.CancelledError):",
        "if False:",
        "test_commits.py::test_cancellation_after_a_commit_leaves_no_known_outcome",
        drivers=("asyncpg",),
    ),
    "position that is not waited for": Protection(
        "db/database.py",
        "if is_partial or isinstance(error, CommitOutcomeUnknown):",
        "if isinstance(error, CommitOutcomeUnknown):",
        "test_replicas.py"
        "::test_position_that_is_not_waited_for_is_looked_for_on_the_primary",
        drivers=("asyncpg",),
        answers=REPLICAS,
    ),
    "answers to errors of a middleware": Protection(
        "web/errors/unhandled.py",
        "answer = None if has_begun else await _answer(request, error)",
        "answer = None",
        "test_http.py::test_error_of_a_middleware_has_the_answer_of_its_handler",
        drivers=("aiosqlite",),
    ),
    "limit of a body before a stream": Protection(
        "web/routes.py",
        "if exchange and exchange.is_body_too_long(route.max_body_size):",
        "if False:",
        "test_http.py::test_declared_body_over_the_limit_cuts_no_stream",
        drivers=("aiosqlite",),
    ),
    "parameter that its convertor rejects": Protection(
        "web/routes.py",
        "except ValueError:",
        "except ZeroDivisionError:",
        "test_http.py::test_parameter_that_its_convertor_rejects_is_404",
        drivers=("aiosqlite",),
    ),
    "drift check": Protection(
        "models.py",
        'Index(None, "created_at", "id"),',
        "",
        "test_migrations.py::test_models_and_migrations_agree",
    ),
    "conditional payment": Protection(
        "payments.py",
        ".where(BY_ID, Order.status == OrderStatus.NEW)",
        ".where(BY_ID)",
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
    with all_tests(shop) as tests:
        done = shop.python(
            *("-m", "pytest", *OPTIONS, f"{tests}/{protection.test}"),
            PYTHONPATH=source,
            **variables,
        )

    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"^\d+ failed", done.stdout, re.MULTILINE), done.stdout
