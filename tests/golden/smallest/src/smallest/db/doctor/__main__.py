"""`make doctor` compares the real file with the settings, and says what is wrong."""

import asyncio

from sqlalchemy.ext.asyncio import AsyncConnection

from ...features import ServiceSettings
from ...settings import Settings
from ...web.edge import check_edge
from ..engine.create import create_engine
from ..features import DatabaseSettings
from ..migrations import check_migrations
from .report import Check, CheckResult, Report, run_checks


async def pragmas(connection: AsyncConnection, _: DatabaseSettings) -> CheckResult:
    for name, wanted in {"journal_mode": "wal", "foreign_keys": 1}.items():
        found = (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
        if found != wanted:
            return "fail", f"{name} is {found}: put the file on a disk of this machine"
    return "ok", "journal_mode wal, foreign_keys on"


def load_settings() -> ServiceSettings:
    """A missing setting of your own is no matter of the doctor."""
    try:
        return Settings.load()
    except SystemExit:
        return ServiceSettings.load()


def main() -> None:
    with Report() as report:
        settings = load_settings()
        path = settings.database_path
        if not path.exists():  # to connect would create it
            report.add("file", "fail", f"{path} is not there: make migrate")
            report.end()
        report.add("file", "ok", f"{path}")
        checks: dict[str, Check] = {
            "pragmas": pragmas,
            "edge": check_edge,
            "migrations": check_migrations,
        }
        engine = create_engine(settings.server, settings.limits)
        asyncio.run(run_checks(engine, settings, checks, {}, report))


if __name__ == "__main__":
    main()
