"""/metrics, for Prometheus: under gunicorn the sum over all workers."""

import os

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

router = APIRouter(tags=["health"])


@router.get("/metrics")
def metrics() -> Response:
    collector: Collector = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
    return Response(generate_latest(collector), media_type=CONTENT_TYPE_LATEST)
