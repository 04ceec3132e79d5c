"""What the platform asks: /livez and /readyz of probe.py, and /metrics: figures."""

import os

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from . import probe

router = probe.router


@router.get("/metrics")
def metrics() -> Response:
    """For Prometheus: under gunicorn the sum over all workers, whichever answers."""
    collector: Collector = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
    return Response(generate_latest(collector), media_type=CONTENT_TYPE_LATEST)
