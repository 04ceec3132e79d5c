"""`make doctor`: looks at the real file, and says what is wrong with the settings."""

import asyncio
import sys

from sqlalchemy.ext.asyncio import AsyncConnection

from .findings import Finding, examine
from .migrate import migrations
from .settings import DatabaseSettings


async def pragmas(connection: AsyncConnection, _: DatabaseSettings) -> Finding:
    for name, wanted in {"journal_mode": "wal", "foreign_keys": 1}.items():
        found = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
        if found != wanted:
            return "fail", f"{name} is {found}: put the file on a disk of this machine"
    return "ok", "journal_mode wal, foreign_keys on"


if __name__ == "__main__":
    settings = DatabaseSettings.load()
    path = settings.database_path
    if not path.exists():  # to connect would create it
        print(f"fail  file        {path} is not there: make migrate")
        sys.exit(1)
    print(f"ok    file        {path}")
    looks = {"pragmas": pragmas, "migrations": migrations}
    sys.exit(asyncio.run(examine(settings, looks)))
