"""Spans of sessions: what is recorded, below what, and what is never in a span."""

import asyncio
from collections.abc import Iterator, Sequence
from threading import Event
from typing import Any

import pytest
from database import SLOW
from fastapi import FastAPI
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import REGISTRY
from shop.db import Database
from shop.db.config.backend import DIALECT
from shop.tracing import http, provider
from sqlalchemy import bindparam, insert, select, text
from sqlalchemy.exc import DBAPIError
from test_sessions import PROBES, checked_out, probes  # noqa: F401

CANARY, NUMBER = "canary-5b8f", 31337
CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
tracer = trace.get_tracer(__name__)


class Unknown:
    """A value that no driver sends."""

    def __repr__(self) -> str:
        return CANARY


class Spans(InMemorySpanExporter):
    @property
    def names(self) -> list[str]:
        return [each.name for each in self.get_finished_spans()]

    def of(self, name: str) -> ReadableSpan:
        return next(each for each in self.get_finished_spans() if each.name == name)

    def above(self, name: str) -> str:
        """The name of the span that it is below."""
        parent = self.of(name).parent
        assert parent
        return next(
            each.name
            for each in self.get_finished_spans()
            if each.context and each.context.span_id == parent.span_id
        )


@pytest.fixture(scope="module")
def exporter() -> Spans:
    exporter, provider = Spans(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: Spans) -> Iterator[Spans]:
    exporter.clear()
    yield exporter
    exporter.clear()


@pytest.mark.usefixtures("probes")
async def test_transaction_is_below_its_connection(
    database: Database, spans: Spans
) -> None:
    with tracer.start_as_current_span("handler"):
        async with database.write() as session:
            await session.execute(insert(PROBES).values(id=1))

    assert spans.above("INSERT probes") == "connection"
    assert spans.above("COMMIT") == "connection"
    assert spans.above("connection") == "handler"
    attributes = spans.of("INSERT probes").attributes
    assert attributes
    assert attributes["db.system.name"] == DIALECT
    assert attributes["db.client.connection.pool.name"] == "primary"
    assert "INSERT INTO probes" in str(attributes["db.query.text"])


async def test_values_and_messages_are_in_no_span(
    database: Database, spans: Spans
) -> None:
    statement = text("SELECT nothing FROM nowhere WHERE something = :value")
    with tracer.start_as_current_span("handler"):
        async with database.write() as session:
            with pytest.raises(DBAPIError):
                await session.execute(statement, {"value": CANARY})
            await session.rollback()

    failed = spans.of("SELECT nowhere")
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes
    assert failed.attributes["error.type"]
    # A file has no code for this.
    assert ("db.response.status_code" in failed.attributes) is (DIALECT != "sqlite")
    for each in spans.get_finished_spans():
        assert CANARY not in each.to_json()
        assert "message" not in each.to_json()


if DIALECT != "mysql":  # its drivers send any object as a text

    async def test_values_in_the_errors_of_a_driver_are_in_no_span(
        database: Database, spans: Spans
    ) -> None:
        """Such an error comes from no server: most have no code, and the value in their
        message.
        """
        statement = text("SELECT CAST(:value AS DECIMAL)")
        with tracer.start_as_current_span("handler"):
            async with database.write() as session:
                with pytest.raises((DBAPIError, AttributeError, TypeError)):
                    await session.execute(statement, {"value": Unknown()})
                await session.rollback()

        failed = spans.of("SELECT")
        assert failed.status.status_code is StatusCode.ERROR
        assert failed.attributes
        # asyncpg has the code of a server for some of them.
        assert failed.attributes.get("db.response.status_code", "22000") == "22000"
        for each in spans.get_finished_spans():
            assert CANARY not in each.to_json()


async def test_statement_that_is_cancelled_ends_its_spans(
    database: Database, spans: Spans
) -> None:
    async def write() -> None:
        with tracer.start_as_current_span("handler"):
            async with database.write() as session:
                await session.execute(text(SLOW))

    writer = asyncio.create_task(write())
    while not checked_out(database):  # noqa: ASYNC110
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)  # nothing says from here that the statement has begun
    writer.cancel()
    await asyncio.wait({writer})

    (slow,) = (
        each
        for each in spans.get_finished_spans()
        if (each.attributes or {}).get("db.query.text") == SLOW
    )
    assert slow.status.status_code is StatusCode.ERROR
    assert {"connection", "handler"} <= {*spans.names}


async def test_wait_in_the_queue_is_a_span(database: Database, spans: Spans) -> None:
    pool = database.engine.pool
    async with database.engine.connect():
        pool.gate.free, free = 0, pool.gate.free
        waiter = asyncio.create_task(_read(database))
        while not pool.gate.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)
        pool.gate.free = free
    await waiter

    assert spans.above("queue") == "connection"


async def test_connection_that_was_idle_is_validated_in_a_span(
    database: Database, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    if DIALECT != "sqlite":  # a file needs no ping
        monkeypatch.setattr("shop.db.engine.validation.IDLE_SECONDS", 0)
    await _read(database)
    spans.clear()
    await _read(database)

    expected = ["validate"] if DIALECT != "sqlite" else []
    assert [each for each in spans.names if each == "validate"] == expected


@pytest.mark.parametrize("flag", ["00", None])
async def test_without_a_recorded_trace_there_are_no_spans(
    app: FastAPI, serve: object, spans: Spans, database: Database, flag: str | None
) -> None:
    headers = {"traceparent": f"{CALLER}-{flag}"} if flag else {}
    if flag is None:  # outside of a request
        async with database.read() as session:
            await session.scalar(select(1))
    else:
        async with serve(app) as client:  # type: ignore[operator]
            assert (await client.get("/orders", headers=headers)).status_code == 200

    assert spans.names == []


async def test_method_that_is_not_known_is_in_no_name(
    app: FastAPI, serve: object, spans: Spans
) -> None:
    """A client can send any, and a backend has a list of all names."""
    async with serve(app) as client:  # type: ignore[operator]
        await client.request("BREW", "/orders")

    (request,) = spans.get_finished_spans()
    assert request.attributes
    assert request.name == f"HTTP {request.attributes['http.route']}"
    assert request.attributes["http.request.method"] == "_OTHER"
    assert request.attributes["http.request.method_original"] == "BREW"


async def test_request_has_its_route_and_status(
    app: FastAPI, serve: object, spans: Spans
) -> None:
    @app.get("/broken/{number}")
    async def broken(number: int) -> None:
        raise ValueError(NUMBER)

    async with serve(app) as client:  # type: ignore[operator]
        headers = {"traceparent": f"{CALLER}-01"}
        await client.get("/broken/1", headers=headers, params={"key": CANARY})
        await client.get("/livez", headers=headers)

    assert spans.names == ["GET /broken/{number}"]
    request = spans.of("GET /broken/{number}")
    assert request.attributes
    assert request.attributes["http.route"] == "/broken/{number}"
    assert request.attributes["http.response.status_code"] == 500
    assert request.status.status_code is StatusCode.ERROR
    assert CANARY not in request.to_json()
    assert str(NUMBER) not in request.to_json()
    assert request.context
    assert f"{request.context.trace_id:032x}" in CALLER


class Hanging(SpanExporter):
    """An endpoint that does not answer before it is released."""

    def __init__(self) -> None:
        self.begun, self.released = Event(), Event()
        self.ended = 0

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.released.wait(0 if self.ended else 10)
        self.ended += 1
        return SpanExportResult.SUCCESS


def dropped(reason: str) -> float:
    name = "tracing_spans_dropped_total"
    return REGISTRY.get_sample_value(name, {"reason": reason}) or 0


async def test_answers_come_while_an_export_hangs(
    app: FastAPI, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans beyond the queue are dropped and counted."""
    monkeypatch.setattr(provider, "MAX_QUEUE", 4)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    hanging, before = Hanging(), dropped(provider.QUEUE_FULL)
    traces = provider._provider(provider.CountingExporter(hanging, provider.Reasons()))
    monkeypatch.setattr(http, "TRACER", traces.get_tracer(__name__))
    async with serve(app) as client:
        for number in range(10):
            headers = {"traceparent": f"{CALLER}-01"}
            assert (await client.get("/orders", headers=headers)).status_code == 200
            if not number:
                assert await asyncio.to_thread(hanging.begun.wait, 10)
    assert hanging.ended == 0
    hanging.released.set()
    traces.force_flush()

    # One is in the export, and four are in the queue.
    assert hanging.ended == 5
    assert dropped(provider.QUEUE_FULL) == before + 5
    traces.shutdown()


@pytest.mark.parametrize(
    ("given", "sampler"),
    [
        ({}, "ParentBased{root:TraceIdRatioBased{0.1},"),
        (
            {"OTEL_TRACES_SAMPLER_ARG": "0.5"},
            "ParentBased{root:TraceIdRatioBased{0.5},",
        ),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, "TraceIdRatioBased{0.1}"),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, "AlwaysOnSampler"),
    ],
)
def test_each_variable_of_the_sampler_has_a_default(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sampler: str
) -> None:
    for name in provider.SAMPLER:
        monkeypatch.setenv(name, given.get(name, ""))
    exporter = provider.CountingExporter(InMemorySpanExporter(), provider.Reasons())
    traces = provider._provider(exporter)
    traces.shutdown()

    assert traces.sampler.get_description().startswith(sampler)


async def test_context_goes_to_other_services(spans: Spans) -> None:
    headers: dict[str, str] = {}
    with tracer.start_as_current_span("handler"):
        propagate.inject(headers)

    context = spans.of("handler").context
    assert context
    assert headers["traceparent"].split("-")[1:3] == [
        f"{context.trace_id:032x}",
        f"{context.span_id:016x}",
    ]


async def _read(database: Database) -> None:
    with tracer.start_as_current_span("handler"):
        async with database.read() as session:
            await session.scalar(select(bindparam("one", 1)))
