"""Metrics of requests: labels are bounded, and the prefix of every router is there."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import StreamingResponse
from prometheus_client import REGISTRY
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from pydantic import BaseModel
from shop.db.errors import FaultKind, OperationTimeout
from shop.features import OBSERVERS
from shop.web import metrics
from shop.web.metrics import AllProcesses
from shop.web.request_metrics import RequestMetrics


class Thing(BaseModel):
    size: int


def value(name: str, **labels: str) -> float:
    for observer in OBSERVERS:
        if isinstance(observer, RequestMetrics):
            observer.export()
    return REGISTRY.get_sample_value(f"http_{name}", labels) or 0


def number(method: str, route: str, status: str) -> float:
    labels = {"method": method, "route": route, "status": status}
    return value("request_duration_seconds_count", **labels)


async def test_requests_are_counted_by_route_and_status(
    app: FastAPI, serve: Any
) -> None:
    inner, outer = APIRouter(prefix="/parts"), APIRouter()

    @inner.put("/{part}")
    async def put(part: int, thing: Thing) -> Response:
        return Response(b"x" * 1000)

    @outer.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError

    outer.include_router(inner, prefix="/v7")
    app.include_router(outer)
    route = "/v7/parts/{part}"
    async with serve(app) as client:
        for part in ("1", "2", "none"):
            await client.put(f"/v7/parts/{part}", json={"size": 1})
        await client.delete("/v7/parts/1")
        await client.get("/fails")
        unmatched = (
            number("GET", "unmatched", "4xx"),
            number("other", "unmatched", "4xx"),
        )
        for path in ("/a", "/b/c", "/v7"):
            await client.get(path)
        await client.request("BREW", "/a")

    assert number("PUT", route, "2xx") == 2
    assert number("PUT", route, "4xx") == 1
    assert number("DELETE", route, "4xx") == 1
    assert number("GET", "/fails", "5xx") == 1
    assert number("GET", "unmatched", "4xx") == unmatched[0] + 3
    assert number("other", "unmatched", "4xx") == unmatched[1] + 1
    labels = {"method": "PUT", "route": route}
    assert value("request_bytes_total", **labels) == 3 * len('{"size":1}')
    assert value("response_bytes_total", **labels) > 2000
    buckets = {"method": "PUT", "route": route, "status": "2xx", "le": "+Inf"}
    assert value("request_duration_seconds_bucket", **buckets) == 2


async def test_problems_are_counted_by_type(app: FastAPI, serve: Any) -> None:
    @app.get("/slow")
    async def slow() -> None:
        raise OperationTimeout("a statement")

    before = value("problems_total", type="timeout")
    async with serve(app) as client:
        assert (await client.get("/slow")).status_code == 503
        assert (await client.get("/unmatched")).status_code == 404

    assert value("problems_total", type="timeout") == before + 1
    # From 0 on: a first problem of another type is seen as well.
    for kind in FaultKind:
        sample = REGISTRY.get_sample_value("http_problems_total", {"type": kind})
        assert sample is not None


async def test_answer_that_is_cut_is_no_success(app: FastAPI, serve: Any) -> None:
    async def rows(error: Exception) -> AsyncIterator[str]:
        yield "one"
        raise error

    @app.get("/cut/{kind}")
    async def cut(kind: str) -> StreamingResponse:
        error = OperationTimeout("late") if kind == "late" else ZeroDivisionError()
        return StreamingResponse(rows(error))

    class Left(Response):
        async def __call__(self, _: Any, __: Any, send: Any) -> None:
            """As a stream ends whose client has left."""
            await send({"type": "http.response.start", "status": 200, "headers": []})

    @app.get("/left")
    async def left() -> Response:
        return Left()

    before = value("problems_total", type="timeout")
    async with serve(app) as client:
        assert (await client.get("/cut/late")).status_code == 200
        assert (await client.get("/cut/other")).status_code == 200
        with pytest.raises(AssertionError):  # of the client: there is no end
            await client.get("/left")

    assert number("GET", "/cut/{kind}", "5xx") == 2
    assert number("GET", "/cut/{kind}", "2xx") == 0
    assert value("problems_total", type="timeout") == before + 1
    # 499
    assert number("GET", "/left", "4xx") == 1


async def test_request_is_in_progress_until_its_end(
    app: FastAPI, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    @app.get("/held")
    async def held() -> None:
        arrived.set()
        await go_on.wait()

    async with serve(app) as client:
        before = value("requests_in_progress")
        task = asyncio.create_task(client.get("/held"))
        await arrived.wait()
        assert value("requests_in_progress") == before + 1
        go_on.set()
        await task
        assert value("requests_in_progress") == before


def test_file_of_a_process_that_has_just_started_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """prometheus_client creates it empty: the scrape was a 500."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    path = tmp_path / "counter_1.db"
    path.touch()

    def write(_: float) -> None:
        values = MmapedDict(str(path))
        values.write_value(mmap_key("shop", "shop_total", [], [], "Shops."), 7, 0)
        values.close()

    monkeypatch.setattr(metrics, "sleep", write)
    (found,) = AllProcesses().collect()

    assert [each.value for each in found.samples] == [7]
