"""Provider of spans, which a thread exports by OTLP: no request waits for it."""

import logging
import os
import re
from collections.abc import Sequence
from functools import cache
from threading import Thread

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from prometheus_client import Counter

PACKAGE = __name__.partition(".")[0]
# One in ten of the traces that no caller has begun; without these the SDK records all.
SAMPLER = {
    "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    "OTEL_TRACES_SAMPLER_ARG": "0.1",
}
# Spans that wait for the export: 2 KB each.
MAX_QUEUE = 2048
# At the end of a process, within the seconds that it has to stop.
FLUSH_SECONDS = 2
PROTOCOL = "http/protobuf"
# Their lines, one for each attempt, may have headers, which are secrets.
NOISY = ("opentelemetry.exporter", "opentelemetry.util")

DROPPED = Counter("tracing_spans_dropped_total", "Spans not exported.", ["reason"])
EXPORT_FAILED, QUEUE_FULL = "export failed", "queue full"

logger = logging.getLogger(__name__)


class CountingExporter(SpanExporter):
    """Counts what is not exported, and warns once until an export succeeds."""

    def __init__(self, exporter: SpanExporter, reasons: "Reasons") -> None:
        self.taken = 0  # spans, from the queue
        self.rejected = 0  # spans that found the queue full
        self._exporter = exporter
        self._reasons = reasons
        self._is_failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        self._reasons.first = ""
        result = self._exporter.export(spans)
        is_failing = result is not SpanExportResult.SUCCESS
        if is_failing:
            DROPPED.labels(EXPORT_FAILED).inc(len(spans))
        if is_failing and not self._is_failing:
            text = "spans cannot be exported and are dropped: %s"
            logger.warning(text, self._reasons.first)
        self._is_failing = is_failing
        rejected, self.rejected = self.rejected, 0
        if rejected:
            DROPPED.labels(QUEUE_FULL).inc(rejected)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class Processor(BatchSpanProcessor):
    """Rejects a span for which the queue has no room; the SDK would drop the oldest
    without counting.
    """

    def __init__(self, exporter: CountingExporter) -> None:
        super().__init__(exporter, max_queue_size=MAX_QUEUE)
        self._counting = exporter
        self._given = 0

    def on_end(self, span: ReadableSpan) -> None:
        if not span.context or not span.context.trace_flags.sampled:
            return
        if self._given - self._counting.taken >= MAX_QUEUE:
            self._counting.rejected += 1
            return
        self._given += 1
        super().on_end(span)


class Reasons(logging.Handler):
    """Keeps the first line of an export: its result does not say why it failed."""

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or _without_url(record.getMessage())


@cache
def set_up() -> TracerProvider | None:
    """To be called in each process after the fork: the exporting thread would not
    survive it. None without an endpoint, or if the variables are wrong.
    """
    protocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
    if not os.environ.get(protocol):
        protocol = "OTEL_EXPORTER_OTLP_PROTOCOL"
    for variable, known in ("OTEL_TRACES_EXPORTER", "otlp"), (protocol, PROTOCOL):
        if (value := os.environ.get(variable) or known) not in (known, "none"):
            logger.warning("no traces: %s=%s: write %s", variable, value, known)
            return None
    if not _is_wanted():
        return None
    reasons = Reasons()
    for name in NOISY:
        logging.getLogger(name).addHandler(reasons)
        logging.getLogger(name).propagate = False
    try:
        exporter = OTLPSpanExporter()
    except Exception as error:  # of a certificate, a header, a compression
        logger.warning("no traces: OTEL_EXPORTER_OTLP_*: %s", type(error).__name__)
        return None
    try:
        provider = _provider(CountingExporter(exporter, reasons))
    except ValueError as error:  # these variables are numbers, and no secrets
        logger.warning("no traces: OTEL_BSP_*, OTEL_*_LIMIT: %s", error)
        return None
    for reason in EXPORT_FAILED, QUEUE_FULL:
        DROPPED.labels(reason)  # from 0 on: Prometheus sees no growth to a first sample
    trace.set_tracer_provider(provider)
    return provider


def _provider(exporter: CountingExporter) -> TracerProvider:
    """Raises ValueError for a variable that is out of range."""
    for variable, default in SAMPLER.items():
        os.environ[variable] = os.environ.get(variable) or default
    named = Resource.create({"service.name": PACKAGE, "process.pid": os.getpid()})
    provider = TracerProvider(
        resource=named.merge(OTELResourceDetector().detect()),
        # Its end would wait for the endpoint for up to 30 s.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(Processor(exporter))
    return provider


def flush() -> None:
    """To be called at the end of a process; what is not exported by then is lost."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        # A daemon, because an endpoint may be silent.
        thread = Thread(target=provider.force_flush, daemon=True)
        thread.start()
        thread.join(FLUSH_SECONDS)


def _is_wanted() -> bool:
    given = os.environ.get
    endpoint = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    endpoint = endpoint or given("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = given("OTEL_SDK_DISABLED", "").lower().strip() == "true"
    return bool(endpoint) and not is_off and given("OTEL_TRACES_EXPORTER") != "none"


def _without_url(text: str) -> str:
    """A URL may contain a token."""
    return re.sub(r"(with url: |Invalid URL |https?://)\S+", r"\1...", text)[:300]
