"""Metrics of tasks for Prometheus, and a line in the log for each."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from billiard import current_process  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

TASKS_TOTAL = Counter("celery_tasks_total", "Attempts that ended.", ["task", "outcome"])
IN_PROGRESS = Gauge(
    "celery_tasks_in_progress", "Running.", ["task"], multiprocess_mode="livesum"
)
SECONDS = Histogram(
    "celery_task_seconds",
    "Duration of an attempt.",
    ["task"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)

logger = logging.getLogger(__name__)


@contextmanager
def track_task(task: str) -> Iterator[None]:
    started, outcome = perf_counter(), "failed"
    try:
        with IN_PROGRESS.labels(task).track_inprogress():
            yield
        outcome = "done"
    except Retry:
        outcome = "retried"
        raise
    except (Reject, SystemExit):  # this process has to stop: another one runs the task
        outcome = "requeued"
        raise
    finally:
        seconds = perf_counter() - started
        TASKS_TOTAL.labels(task, outcome).inc()
        SECONDS.labels(task).observe(seconds)
        milliseconds = round(seconds * 1000, 1)
        facts = {"task": task, "outcome": outcome, "duration_ms": milliseconds}
        logger.info("%(task)s %(outcome)s", facts, extra=facts)


class WorkerMetrics(Collector):
    """The sum over the processes of a worker."""

    def collect(self) -> Iterable[Metric]:
        collector: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        return collector.collect()


def end_gauges(**_: Any) -> None:
    """Remove the gauges that the predecessor of this process has left."""
    mark_process_dead(getattr(current_process(), "index", "parent"))  # type: ignore[no-untyped-call]
