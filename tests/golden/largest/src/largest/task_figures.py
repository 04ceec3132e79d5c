"""What tasks are doing: a line in the log for each, and figures for Prometheus."""

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from celery.exceptions import Reject, Retry  # type: ignore[import-untyped]
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

ENDED = Counter("celery_tasks_total", "Attempts that ended.", ["task", "outcome"])
IN_PROGRESS = Gauge(
    "celery_tasks_in_progress", "At work.", ["task"], multiprocess_mode="livesum"
)
BUCKETS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)
SECONDS = Histogram("celery_task_seconds", "At work.", ["task"], buckets=BUCKETS)

logger = logging.getLogger(__name__)


@contextmanager
def observed(task: str) -> Iterator[None]:
    started, outcome = perf_counter(), "failed"
    try:
        with IN_PROGRESS.labels(task).track_inprogress():
            yield
        outcome = "done"
    except Retry:
        outcome = "retried"
        raise
    except (Reject, SystemExit):  # another worker has it: this one has to stop
        outcome = "requeued"
        raise
    finally:
        seconds = perf_counter() - started
        ENDED.labels(task, outcome).inc()
        SECONDS.labels(task).observe(seconds)
        duration = {"duration_ms": round(seconds * 1000, 1)}
        logger.info("%s %s", task, outcome, extra=duration)


class Figures(Collector):
    """The sum over the processes of a worker."""

    def collect(self) -> Iterable[Metric]:
        for path in Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).glob("gauge_live*"):
            # What a process had at work it has no more, however it ended.
            if not _lives(pid := int(path.stem.rpartition("_")[2])):
                mark_process_dead(pid)  # type: ignore[no-untyped-call]
        collector: Collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        return collector.collect()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
