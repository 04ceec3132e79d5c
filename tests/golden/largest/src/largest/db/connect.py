"""What asyncpg must be told: the connection, its limits, the write transaction."""

import ssl
from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

if TYPE_CHECKING:
    from .settings import DatabaseSettings

DIALECT = "postgresql"
DRIVER = "asyncpg"
SCHEMES = ("postgresql", "postgres")
DEFAULT_PORT = 5432

# SQLSTATE, or the first characters of it, and what it means for the caller.
FAULTS = {
    "08": "unavailable",  # connection failed
    "23": "conflict",  # unique, foreign key, not null, check, exclusion
    "25006": "unavailable",  # read only: the primary has moved
    "28": "unavailable",  # login refused
    "3D000": "unavailable",  # no such database
    "40": "busy",  # deadlock or serialization failure, rolled back
    "53": "busy",  # too many connections, out of memory or disk
    "55P03": "busy",  # lock not available
    "57014": "timeout",  # statement_timeout
    "57P": "unavailable",  # the server is stopping or starting
}


def connect_args(settings: "DatabaseSettings") -> dict[str, Any]:
    return {
        "async_creator_fn": _connect,
        "ssl": _ssl_context(settings),
        "timeout": settings.database_connect_timeout_seconds,
        # The server's own limit comes first and leaves the connection clean; this
        # one ends the wait for a server that no longer answers.
        "command_timeout": settings.database_client_timeout_seconds,
        "server_settings": {
            "application_name": __name__.partition(".")[0],
            "lock_timeout": _milliseconds(settings.database_lock_timeout_seconds),
            "statement_timeout": _milliseconds(
                settings.database_statement_timeout_seconds
            ),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.database_idle_in_transaction_timeout_seconds
            ),
        },
    }


def transactional(engine: AsyncEngine) -> AsyncEngine:
    """The same pool, with a transaction around what is executed."""
    return engine.execution_options(isolation_level="READ COMMITTED")


def fault(error: DBAPIError) -> str | None:
    """Name the fault by its SQLSTATE; the class differs from driver to driver."""
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    return next((FAULTS[code] for code in FAULTS if sqlstate.startswith(code)), None)


async def _connect(*args: Any, **kwargs: Any) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(*args, **kwargs)
    except OSError as error:
        # SQLAlchemy wraps the driver's own errors only: a bare ConnectionRefusedError
        # could come from anywhere in the service, this one is the database's.
        reason = str(error) or "timeout"
        raise asyncpg.ClientCannotConnectError(f"cannot connect: {reason}") from error


def _ssl_context(settings: "DatabaseSettings") -> ssl.SSLContext | bool:
    """Encryption exactly as DATABASE_SSLMODE says, or an error: never less."""
    mode = settings.database_sslmode
    if mode == "disable":
        return False
    context = ssl.create_default_context(cafile=settings.database_sslrootcert)
    context.check_hostname = mode == "verify-full"
    if mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return context


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
