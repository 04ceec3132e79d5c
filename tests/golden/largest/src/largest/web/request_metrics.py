"""Metrics of requests: rate, errors and duration by route, bytes, and those running."""

import asyncio
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

from ..db.engine.timing import Ticker
from .errors import PROBLEMS
from .middleware import Exchange

REFRESH_SECONDS = 0.1
ROUTE = ["method", "route"]

IN_PROGRESS = Gauge(
    "http_requests_in_progress", "Running.", multiprocess_mode="livesum"
)
DURATION = Histogram(
    "http_request_duration_seconds",
    "Until the last byte of the answer was sent.",
    [*ROUTE, "status"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECEIVED = Counter("http_request_bytes_total", "Bytes of bodies received.", ROUTE)
SENT = Counter("http_response_bytes_total", "Bytes of bodies sent.", ROUTE)
PROBLEMS_TOTAL = Counter(
    "http_problems_total", "Errors of the database that were answered.", ["type"]
)
for kind in PROBLEMS:  # from 0 on: Prometheus sees no growth to a first sample
    PROBLEMS_TOTAL.labels(kind)
# A client can send any: those in a label are known.
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class RequestMetrics:
    """Exports what has happened ten times a second: a metric that processes share is
    slow to write, and less so the second one in a row.
    """

    def __init__(self) -> None:
        self._running = 0
        # Method, template of the route, class of the status, type of a problem,
        # seconds, bytes of bodies.
        self._ended: list[tuple[str, str, str, str, float, int, int]] = []
        self._ticker = Ticker(REFRESH_SECONDS, self.export)

    def started(self) -> None:
        self._running += 1
        if self._ticker.loop is not asyncio.get_running_loop():
            self._ticker.start()

    def ended(self, exchange: Exchange) -> None:
        self._running -= 1
        method = exchange.scope["method"]
        self._ended.append(
            (
                method if method in METHODS else "other",
                exchange.path,
                "5xx" if exchange.cut else f"{exchange.status // 100}xx",
                exchange.problem,
                exchange.seconds,
                exchange.total_size,
                exchange.sent,
            )
        )

    def export(self) -> bool:
        """Whether there was something to export."""
        IN_PROGRESS.set(self._running)
        ended, self._ended = self._ended, []
        for method, route, status, problem, seconds, received, sent in ended:
            _duration(method, route, status).observe(seconds)
            if received:
                RECEIVED.labels(method, route).inc(received)
            _sent(method, route).inc(sent)
            if problem:
                PROBLEMS_TOTAL.labels(problem).inc()
        return bool(ended or self._running)


# labels() takes 1 us.
@cache
def _duration(*labels: str) -> Histogram:
    return DURATION.labels(*labels)


@cache
def _sent(*labels: str) -> Counter:
    return SENT.labels(*labels)
