"""`make doctor` compares the real server with the settings, and says what is wrong."""

import asyncio
from dataclasses import replace

from ...features import ServiceSettings
from ...settings import Settings
from ...web.edge import check_edge
from ..engine.create import create_engine
from ..migrations import check_migrations
from .checks import SERVER_CHECKS
from .report import Check, Report, run_checks
from .server import HINTS, server, timeouts


def load_settings() -> ServiceSettings:
    """A missing setting of your own is no matter of the doctor."""
    try:
        return Settings.load()
    except SystemExit:
        return ServiceSettings.load()


def check(report: Report) -> None:
    settings = load_settings()
    checks: dict[str, Check] = {"server": server, **SERVER_CHECKS, **settings.checks}
    checks |= {"timeouts": timeouts, "edge": check_edge, "migrations": check_migrations}
    # Two connections, to see whether they get two sessions.
    limits = replace(settings.limits, pool_size=2)
    engine = create_engine(settings.server, limits, settings.hooks)
    asyncio.run(run_checks(engine, settings, checks, HINTS, report))


def main() -> None:
    with Report() as report:
        check(report)


if __name__ == "__main__":
    main()
