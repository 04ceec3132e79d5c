"""/livez: the process runs. /readyz: it has reached its database. /metrics: figures."""

import os

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from .errors import problem
from .probe import Health

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    # No look at the database: a restart would not bring it back.
    return {"status": "alive"}


@router.get("/readyz", response_model=None)
async def readyz(request: Request) -> dict[str, str] | JSONResponse:
    """503 until the database has answered once, then 200.

    A later outage stays a field of the body. It is the same for all instances: to
    take them all out of the load balancer would turn each route's own answer, a
    503 with Retry-After, into a refused connection.
    """
    health: Health = request.state.health
    database = await health.of_database()
    if not health.was_reachable:
        return problem(503, "The database has not answered yet.", database=database)
    return {"status": "ready", "database": database}


@router.get("/metrics")
def metrics() -> Response:
    """For Prometheus: under gunicorn the sum over all workers, whichever answers."""
    collector: Collector = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        collector = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
    return Response(generate_latest(collector), media_type=CONTENT_TYPE_LATEST)
