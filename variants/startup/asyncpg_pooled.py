"""What the pooler is told as a session starts: who asks, and nothing else.

Each transaction may be in another session of the server, so nothing is kept in one.
"""

from typing import TYPE_CHECKING, Any

import asyncpg  # type: ignore[import-untyped]

from .environment import require

if TYPE_CHECKING:
    from .settings import DatabaseSettings


require(asyncpg.Connection, "_introspect_types", "_server_caps")


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Looks up a type, as an enum, without SET: another session would keep it."""

    _server_caps: Any

    async def _introspect_types(self, *args: Any) -> Any:
        self._server_caps = self._server_caps._replace(jit=False)
        return await super()._introspect_types(*args)


def startup_args(_: "DatabaseSettings") -> dict[str, Any]:
    return {
        "connection_class": _Connection,
        # A pooler refuses a session that brings limits: deploy/bootstrap.sql has them.
        "server_settings": {"application_name": __name__.partition(".")[0]},
        # Nothing is prepared by name, and both are needed: with asyncpg's cache alone
        # switched off, SQLAlchemy's reads a column that a migration has changed with
        # the old type, and returns nonsense without an error.
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
    }
