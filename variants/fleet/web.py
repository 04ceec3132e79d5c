"""What all processes may open together, by the numbers that are in force."""

from .budget import FLEET_PROCESSES, WORKERS
from .environment import positive_number
from .settings import DatabaseSettings


def fleet(settings: DatabaseSettings) -> tuple[int, str]:
    workers = positive_number("WEB_CONCURRENCY", WORKERS)
    processes = FLEET_PROCESSES // WORKERS * workers
    each = settings.connections
    total = processes * each
    return total, f"{processes} processes at the peak of a rollout x {each} = {total}"
