"""PostgreSQL: transactions and error codes."""

import re
from collections.abc import Mapping

from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

PRIMARY_QUERY = "SELECT NOT pg_is_in_recovery()"

READ_ONLY_SQLSTATE = "25006"

# SQLSTATE, or its first characters, and the kind of fault: see FaultKind.
FAULTS: dict[str, str | None] = {
    "08": "unavailable",  # connection failed
    "22012": None,  # division by zero: a bug of the service
    "22": "invalid-value",  # out of range, too long, NUL, no such member of an enum
    "23": "conflict",  # unique, foreign key, not null, check, exclusion
    READ_ONLY_SQLSTATE: "unavailable",
    "25P03": "timeout",  # idle_in_transaction_session_timeout
    "25P04": "timeout",  # transaction_timeout
    "28": "unavailable",  # login refused
    "3D000": "unavailable",  # no such database
    "40": "busy",  # deadlock or serialization failure, rolled back
    "44": "conflict",  # the CHECK OPTION of a view
    "53": "busy",  # too many connections, out of memory or disk
    "54000": "invalid-value",  # longer than an index or a row can hold
    "55P03": "busy",  # lock not available
    "57014": "timeout",  # statement_timeout
    "57P": "unavailable",  # the server is stopping or starting
    "58": "unavailable",  # an error of its disk
    "P0001": "conflict",  # RAISE, as in a trigger that rejects a change
}
SYNTAX_ERROR = "42601"
# Of what is within a value; the parser of statements has other names.
PARSERS = (
    *("makepol", "gettoken_query_standard", "prssyntaxerror", "gettoken_tsvector"),
    *("jsonpath_yyerror", "makeItemLikeRegex", "flattenJsonPathParseItem"),
)
# By function of the server, where a SQLSTATE has other causes too: those are bugs, or a
# privilege that the role lacks.
FUNCTIONS = {
    ("42501", "ExecWithCheckOptions"): "conflict",  # a policy rejects the new row
    # A key twice in one upsert, or in one MERGE.
    ("21000", "ExecOnConflictUpdate"): "invalid-value",
    ("21000", "ExecMergeMatched"): "invalid-value",
    # A text that is no tsquery, no tsvector, no path of JSON.
    **dict.fromkeys([(SYNTAX_ERROR, name) for name in PARSERS], "invalid-value"),
}

# What a server says last: it has ended the session, so it commits nothing more.
SESSION_ENDED = {"25P03", "25P04", "57P01", "57P04", "57P05"}

SETTING = re.compile(r"[a-z_]\w*(\.[a-z_]\w*)*", re.IGNORECASE | re.ASCII)


def classify_code(error: DBAPIError) -> str | None:
    """The kind of fault by SQLSTATE; the class of an error depends on the driver."""
    sqlstate = _sqlstate(error.orig)
    if kind := FUNCTIONS.get((sqlstate, _function(error.orig))):
        return kind
    return next((FAULTS[code] for code in FAULTS if sqlstate.startswith(code)), None)


def is_rolled_back(error: DBAPIError) -> bool:
    """Whether COMMIT had no effect, although its connection is lost."""
    return (
        getattr(error, "is_before_commit", False)
        or _sqlstate(error.orig) in SESSION_ENDED
    )


def is_read_only(error: BaseException) -> bool:
    """Whether the server rejects a write, as a standby does."""
    return getattr(error, "sqlstate", None) == READ_ONLY_SQLSTATE


def rejects_write(error: BaseException) -> bool:
    """Whether the server refuses to write, in this session or as a standby."""
    return is_read_only(getattr(error, "orig", None) or error)


def safe_text(error: BaseException) -> str:
    """The message of the server, without the data that it quotes."""
    sqlstate = _sqlstate(error)
    if sqlstate.startswith("22") or sqlstate in {SYNTAX_ERROR, "P0001"}:
        return f"{sqlstate} {type(error.__cause__ or error).__name__}"
    return str(error)  # data are behind its first line


def _sqlstate(error: BaseException | None) -> str:
    """Of the first cause: a driver may have the words of the server behind its own."""
    sqlstate = ""
    while error:
        sqlstate = getattr(error, "sqlstate", None) or sqlstate
        error = error.__cause__
    return sqlstate


def _function(error: BaseException | None) -> str:
    """That of the server which has raised the error; a message is in its language."""
    while error:
        source = getattr(error, "diag", error)
        for name in ("source_function", "server_source_function"):
            if function := getattr(source, name, None):
                return str(function)
        error = error.__cause__
    return ""


def with_transactions(engine: AsyncEngine, _: object = None) -> AsyncEngine:
    """The same pool; a connection begins a transaction."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def with_snapshots(engine: AsyncEngine) -> AsyncEngine:
    """The same pool; a connection begins a transaction that only reads, and sees the
    state of its first statement.
    """
    return engine.execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def local_settings(
    settings: Mapping[str, str] | None,
) -> tuple[TextClause, dict[str, str]] | None:
    """The statement that sets them for a transaction, and its values."""
    for name, value in (settings or {}).items():
        if not SETTING.fullmatch(name) or not isinstance(value, str):
            raise InvalidRequestError(
                f"{name!r} is no local setting: its name is letters, digits and _ in"
                " parts with a dot between, as app.tenant, and its value is a str."
            )
    if not settings:
        return None
    calls: list[str] = []
    values: dict[str, str] = {}
    for number, (name, value) in enumerate(settings.items()):
        calls.append(f"set_config(:name{number}, :value{number}, true)")
        values |= {f"name{number}": name, f"value{number}": value}
    return text(f"SELECT {', '.join(calls)}"), values


def for_export(engine: AsyncEngine) -> AsyncEngine:
    """For an export: a cursor of the server needs a transaction."""
    return engine.execution_options(
        isolation_level="READ COMMITTED", postgresql_readonly=True
    )


async def extend_timeouts(connection: AsyncConnection, seconds: float) -> None:
    """Raise the timeouts of this transaction: a slow reader delays the next fetch."""
    milliseconds = round(seconds * 1000)
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    for limit in limits:
        await connection.exec_driver_sql(f"SET LOCAL {limit} = {milliseconds}")
