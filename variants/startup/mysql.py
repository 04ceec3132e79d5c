"""What the server is told as a session starts: its limits."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .settings import DatabaseSettings


def startup_args(settings: "DatabaseSettings") -> dict[str, Any]:
    """One statement for both servers.

    MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */: each has its own
    name for the limit of a statement, and only MariaDB has one for idleness.
    """
    lock = max(1, int(settings.database_lock_timeout_seconds))  # whole seconds
    statement = settings.database_statement_timeout_seconds
    idle = max(1, round(settings.database_idle_in_transaction_timeout_seconds))
    limits = (
        f"SET innodb_lock_wait_timeout={lock}, lock_wait_timeout={lock},"
        f" /*M! max_statement_time={statement}, idle_transaction_timeout={idle},"
        " tx_isolation='READ-COMMITTED', */"
        f" /*!80000 max_execution_time={round(statement * 1000)},"
        " transaction_isolation='READ-COMMITTED', */"
        # Without it some servers cut a text that is too long, and say nothing.
        " time_zone='+00:00', sql_mode='TRADITIONAL'"
    )
    return {"statements": (limits,)}
