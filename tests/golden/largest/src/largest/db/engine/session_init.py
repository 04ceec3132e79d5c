"""Start of a session: the name of this service.

Nothing else, since the pooler may give each transaction another session.
"""

from typing import Any

import asyncpg  # type: ignore[import-untyped]

from ..config.environment import require
from ..config.limits import Limits

require(asyncpg.Connection, "_introspect_types", "_server_caps")


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Looks up a type, as an enum, without SET: the next client would inherit it."""

    _server_caps: Any

    async def _introspect_types(self, *args: Any) -> Any:
        self._server_caps = self._server_caps._replace(jit=False)
        return await super()._introspect_types(*args)


def session_options(_: Limits) -> dict[str, Any]:
    return {
        "connection_class": _Connection,
        # A pooler rejects a session that sets timeouts: deploy/bootstrap.sql has them.
        "server_settings": {"application_name": __name__.partition(".")[0]},
        # Nothing is prepared by name, and both are needed: with asyncpg's cache alone
        # switched off, SQLAlchemy's reads a column that a migration has changed with
        # the old type, and returns nonsense without an error.
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
    }
