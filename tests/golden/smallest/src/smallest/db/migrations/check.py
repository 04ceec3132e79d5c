"""Check of the doctor: is the schema that of this code?"""

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

from ..features import DatabaseSettings


async def check_migrations(
    connection: AsyncConnection, _: DatabaseSettings
) -> tuple[str, str]:
    """State and detail, as in the report; changes nothing."""
    try:
        scripts = ScriptDirectory.from_config(Config(toml_file="pyproject.toml"))
    except CommandError:
        return "warn", "none here: start the doctor in the folder of the service"
    current = await connection.run_sync(_revisions)
    at = f"at {', '.join(sorted(current)) or 'no revision'}"
    if current == {*scripts.get_heads()}:
        return "ok", at
    if current <= {script.revision for script in scripts.walk_revisions()}:
        return "fail", f"behind, {at}: make migrate"
    return "warn", f"ahead of this code, {at}"


def _revisions(connection: Connection) -> set[str]:
    return {*MigrationContext.configure(connection).get_current_heads()}
