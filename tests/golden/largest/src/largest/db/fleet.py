"""What all processes may open together, by the numbers that are in force."""

from typing import TypeVar

from pydantic import Field

from .budget import (
    CELERY_CONCURRENCY,
    CELERY_POOL_SIZE,
    CELERY_PROCESSES,
    FLEET_PROCESSES,
    WORKERS,
)
from .environment import EnvironmentSettings, positive_number
from .settings import DatabaseSettings

Settings = TypeVar("Settings", bound=DatabaseSettings)


class TaskSettings(EnvironmentSettings):
    """How many tasks a worker runs at a time, and what the process of each opens."""

    celery_concurrency: int = Field(default=CELERY_CONCURRENCY, ge=1, le=1000)
    celery_pool_size: int = Field(default=CELERY_POOL_SIZE, ge=1, le=1000)


# Here, because a wrong number shall end the process before it has begun to serve.
tasks = TaskSettings.load()


def of_worker(settings: Settings) -> Settings:
    """The settings of a process that runs one task at a time."""
    size = {
        "database_pool_size": tasks.celery_pool_size,
        "database_max_overflow": 0,
    }
    return settings.model_copy(update=size)


def fleet(settings: DatabaseSettings) -> tuple[int, str]:
    workers = positive_number("WEB_CONCURRENCY", WORKERS)
    processes = FLEET_PROCESSES // WORKERS * workers
    each = settings.connections
    of_tasks = CELERY_PROCESSES // CELERY_CONCURRENCY * tasks.celery_concurrency
    celery = of_tasks * of_worker(settings).connections
    total = processes * each + celery
    sum_ = f"{processes} processes at the peak of a rollout x {each} + {celery}"
    return total, f"{sum_} of Celery = {total}"
