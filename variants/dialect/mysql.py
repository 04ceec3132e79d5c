"""MySQL and MariaDB: statements, transactions, error codes."""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, ExceptionContext, event
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql.visitors import iterate

PRIMARY_QUERY = "SELECT NOT (@@read_only OR @@innodb_read_only)"

DUPLICATE = 1062
SYNTAX_ERROR = 1064
# Of the errors of values, those that name the column only.
QUOTE_NOTHING = {1264, 1265, 1406, 1153}
# From this size on a statement is compared with the limit of the server.
LARGE_BYTES = 64 * 1024
# SIGNAL, as in a trigger that rejects a change: the message is its own.
SIGNAL = 1644
# An option of the server prevents the statement, such as --read-only; a server and a
# transaction that only read.
PREVENTED, READ_ONLY_MODE, READ_ONLY_TRANSACTION = 1290, 1836, 1792

# Error numbers by kind of fault: see FaultKind.
FAULTS = {
    # Unique; not null; foreign keys, and those of a table that this user may not see;
    # check constraints of MySQL and of MariaDB; the CHECK OPTION of a view.
    "conflict": {DUPLICATE, SIGNAL, 1048, 1364, 1451, 1452, 1216, 1217}
    | {1369, 3819, 4025},
    # Out of range, too long, not of the type or the character set, no valid JSON,
    # too many levels of JSON, longer than a packet; no valid path or pattern.
    "invalid-value": {1264, 1690, 1406, 1265, 1292, 1366, 1367, 1411, 1525}
    | {1300, 3854, 1416, 3140, 3141, 3143, 3157, 1153, 1139, *range(3684, 3701)},
    # Lock wait, NOWAIT of MySQL, deadlock, row or table changed since it was read,
    # changed by another member of the group; too many connections; no more disk,
    # memory, threads, transactions, locks.
    "busy": {1205, 3572, 1213, 1020, 1412, 3101, 1040, 1203, 1226}
    | {1021, 1114, 1037, 1038, 1041, 1135, 1637, 1206},
    # max_statement_time of MariaDB, max_execution_time of MySQL, KILL QUERY.
    "timeout": {1969, 3024, 1317},
    # Refused; unknown; lost, within a statement, by KILL, for being idle; stopping; no
    # such host; not encrypted.
    "unavailable": {2003, 2005, 2006, 2013, 1927, 4031, 1053, 1129, 1130, 2026, 3159}
    # Login, access, no such database; a locked account of MySQL and of MariaDB, one
    # with too many failed logins, an expired password; a transaction that only reads.
    | {1045, 1044, 1049, 3118, 4151, 3955, 1862, 1820, READ_ONLY_TRANSACTION}
    # MySQL that is offline, a group of servers that has lost its majority, a member of
    # Galera that is not ready, an error of the storage.
    | {3032, 3100, 1047, 1030, READ_ONLY_MODE},
}


class CheckedStatements:
    """Mixin of a driver's connection: what the server cannot take is not sent.

    It would close the connection at a packet that is too large.
    """

    _largest = 0  # bytes

    async def check_size(self, sql: str | bytes) -> None:
        if len(sql) < LARGE_BYTES:
            return
        if not self._largest:
            own: Any = self
            async with own.cursor() as cursor:
                await cursor.execute("SELECT @@max_allowed_packet")
                (self._largest,) = await cursor.fetchone()
        data = sql.encode(errors="surrogateescape") if isinstance(sql, str) else sql
        if len(data) >= self._largest:
            raise OverflowError(
                f"a statement above max_allowed_packet, {self._largest}"
            )


class UncancelledStatements(CheckedStatements):
    """Mixin of a driver's connection: a cancelled caller waits for its statement.

    The server would go on with it, while the pool opens another connection: 200
    cancellations made 190 sessions of a pool of 10.
    """

    # From the end of the connect on: before, the watchdog does not know it.
    is_connected = False

    async def query(self, sql: str | bytes, *args: Any, **kwargs: Any) -> Any:
        await self.check_size(sql)
        parent: Any = super()
        return await self._finish(parent.query(sql, *args, **kwargs))

    async def commit(self) -> None:
        parent: Any = super()
        await self._finish(parent.commit())

    async def _finish(self, answer: Coroutine[Any, Any, Any]) -> Any:
        if not self.is_connected:
            return await answer
        task = asyncio.create_task(answer)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):  # a second one
                    await asyncio.wait({task})
            task.exception()  # retrieved, else asyncio logs it
            raise


class RestoredLevels(DefaultDialect):
    """Mixin of a dialect: the isolation level of one transaction ends with it.

    That of the pool is AUTOCOMMIT, to which SQLAlchemy returns without the other.
    """

    def reset_isolation_level(self, dbapi_connection: Any) -> None:
        super().reset_isolation_level(dbapi_connection)  # type: ignore[no-untyped-call]
        level = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
        dbapi_connection.cursor().execute(level)


class SingleUpserts(DefaultDialect):
    """Mixin of a dialect: an upsert of many rows whose ON DUPLICATE KEY UPDATE has
    values of its own is sent row by row.

    The drivers join the rows of an INSERT, and have no place for values behind them.
    """

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        parent: Any = super()
        if "%" not in statement.partition(" ON DUPLICATE KEY UPDATE ")[2]:
            parent.do_executemany(cursor, statement, parameters, context)
            return
        context._rowcount = 0  # the cursor has that of the last row
        for values in parameters:
            parent.do_execute(cursor, statement, values, context)
            context._rowcount += cursor.rowcount


@event.listens_for(Engine, "handle_error")
def _name_limit(context: ExceptionContext) -> None:
    """A LIMIT or OFFSET below 0 or above 64 bits: a syntax error to this server."""
    error, execution = context.original_exception, context.execution_context
    compiled: Any = getattr(execution, "compiled", None)
    if error.args[:1] != (SYNTAX_ERROR,) or not compiled:
        return
    values: Any = (getattr(execution, "compiled_parameters", None) or [{}])[0]
    for part in iterate(compiled.statement):
        for name in ("_limit_clause", "_offset_clause"):
            number = values.get(compiled.bind_names.get(getattr(part, name, None)))
            if isinstance(number, int) and not 0 <= number < 2**64:
                error.__cause__ = ValueError("no number of rows")


def classify_code(error: DBAPIError) -> str | None:
    """The kind of fault by number; the class of an error depends on the driver."""
    if error.orig and is_read_only(error.orig):
        return "unavailable"
    number = next(iter(error.orig.args if error.orig else ()), 0)
    if number == SYNTAX_ERROR and is_search_error(error.orig):
        return "invalid-value"
    return next((name for name, numbers in FAULTS.items() if number in numbers), None)


def is_search_error(error: BaseException | None) -> bool:
    """Whether a text is no search IN BOOLEAN MODE: its parser is InnoDB's, whose words
    are neither translated nor those for a statement.
    """
    return error is not None and str(error.args[-1]).startswith("syntax error, ")


def is_rolled_back(error: DBAPIError) -> bool:
    """Whether COMMIT had no effect, although its connection is lost."""
    # 2006: the connection was closed already.
    was_sent = error.orig is None or error.orig.args[:1] != (2006,)
    return getattr(error, "is_before_commit", False) or not was_sent


def is_read_only(error: BaseException) -> bool:
    """Whether the server rejects a write, as a replica does."""
    # The server translates its message, and not the name of the option.
    is_option = error.args[:1] == (PREVENTED,) and "read-only" in str(error)
    return is_option or error.args[:1] == (READ_ONLY_MODE,)


def rejects_write(error: BaseException) -> bool:
    """Whether the server refuses to write, in this session or as a replica."""
    error = getattr(error, "orig", None) or error
    return is_read_only(error) or error.args[:1] == (READ_ONLY_TRANSACTION,)


def safe_text(error: BaseException) -> str:
    """The message of the server, without the data that it quotes."""
    number, *texts = error.args or (0,)
    if number == DUPLICATE:
        # "Duplicate entry 'ada' for key 'customer'", in the language of the server.
        return f"({DUPLICATE}, duplicate entry for {texts[0].split()[-1]})"
    if number in (FAULTS["invalid-value"] | {SIGNAL, SYNTAX_ERROR}) - QUOTE_NOTHING:
        return f"({number}, {type(error).__name__})"
    return str(error)


def with_transactions(engine: AsyncEngine, begin_by: Any = None) -> AsyncEngine:
    """The same pool; a connection begins a transaction: see `orm.commits.begin_by`."""
    writes = engine.execution_options()
    event.listen(writes.sync_engine, "begin", begin_by(_begin) if begin_by else _begin)
    return writes


def with_snapshots(engine: AsyncEngine) -> AsyncEngine:
    """The same pool; a connection begins a transaction that only reads, and sees the
    state of its first statement.
    """
    snapshots = engine.execution_options()
    event.listen(snapshots.sync_engine, "begin", _begin_snapshot)
    return snapshots


def local_settings(settings: Mapping[str, str] | None) -> tuple[Any, Any] | None:
    """This server has none."""
    if settings:
        raise InvalidRequestError(
            "MySQL has no settings that end with a transaction, nor row level security:"
            " name the tenant in the WHERE of each statement."
        )
    return None


def for_export(engine: AsyncEngine) -> AsyncEngine:
    """For an export: the server sends one SELECT row by row."""
    return engine


async def extend_timeouts(connection: AsyncConnection, seconds: float) -> None:
    """Raise the timeouts of this connection: a slow reader delays the next fetch."""
    await connection.exec_driver_sql(
        f"SET net_write_timeout={max(1, round(seconds))}"
        f" /*M! , max_statement_time={seconds} */"
        f" /*!80000 , max_execution_time={round(seconds * 1000)} */"
    )


def as_latin1(password: str | None) -> str | None:
    """For drivers that encode a password as Latin-1: the server compares UTF-8."""
    return password and password.encode().decode("latin-1")


def is_idle(connection: Any) -> bool:
    """Whether a connection in AUTOCOMMIT is outside of a transaction.

    The server calls a session "autocommit" even between BEGIN and COMMIT. Asked this
    way, the pool still rolls back what a cancelled writer has left open.
    """
    # SERVER_STATUS_AUTOCOMMIT is 2, SERVER_STATUS_IN_TRANS is 1.
    return bool(connection.driver_connection.server_status & 3 == 2)


def _begin(connection: Connection) -> None:
    # Not by switching autocommit off and on: that is two more round trips.
    connection.exec_driver_sql("BEGIN")


def _begin_snapshot(connection: Connection) -> None:
    # Of the next transaction alone; the sessions are in READ COMMITTED.
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
