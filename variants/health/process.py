"""What the platform asks: /livez and /readyz of probe.py, and /metrics: figures."""

from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from . import probe

router = probe.router


@router.get("/metrics")
def metrics() -> Response:
    """For Prometheus."""
    return Response(generate_latest(REGISTRY), media_type=CONTENT_TYPE_LATEST)
