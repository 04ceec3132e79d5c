"""Start of a session: its timeouts, and the name of this service."""

from typing import Any

from ..config.limits import Limits


def session_options(limits: Limits) -> dict[str, Any]:
    """One statement for both servers.

    MariaDB executes what is in /*M! */, MySQL what is in /*!80000 */: each has its own
    name for the limit of a statement, and only MariaDB has one for idleness.
    """
    lock = max(1, int(limits.lock_timeout_seconds))  # whole seconds
    statement = limits.statement_timeout_seconds
    idle = max(1, round(limits.idle_in_transaction_timeout_seconds))
    setup = (
        f"SET innodb_lock_wait_timeout={lock}, lock_wait_timeout={lock},"
        f" /*M! max_statement_time={statement}, idle_transaction_timeout={idle},"
        " tx_isolation='READ-COMMITTED', */"
        f" /*!80000 max_execution_time={round(statement * 1000)},"
        " transaction_isolation='READ-COMMITTED', */"
        # Without it some servers cut a text that is too long, and say nothing.
        " time_zone='+00:00', sql_mode='TRADITIONAL'"
    )
    return {"statements": (setup,)}
