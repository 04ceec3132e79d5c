"""`gunicorn` in this directory reads this file and starts the service."""

# ruff: noqa: E402 (prometheus_client must be set up before other imports)

import gc
import os
import shutil
import sys
import tempfile
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    # The workers share their metrics by files in memory. prometheus_client reads the
    # variable when it is imported, hence before the other imports.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(
        prefix=f"metrics-{os.getpid()}-",
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    )

from prometheus_client import Counter, values
from prometheus_client.multiprocess import mark_process_dead


@cache
def place(pid: int) -> str:
    """Asked at each change of a metric; the environment is slow to answer."""
    return os.environ.get("PLACE", "master")


# A file for each place of a worker, not for each process: the successor of a worker
# goes on with its counters, so the number of files stays the same.
values.ValueClass = values.MultiProcessValue(lambda: place(os.getpid()))
# A reload reads this file again, and a registry rejects a second metric of one name.
ENDED = Counter(
    "gunicorn_workers_ended_total",
    "Workers that ended before their instance.",
    registry=None,
)

from smallest.db.budget import WORKERS
from smallest.db.config.environment import positive_number
from smallest.db.engine.create import drop_inherited_connections
from smallest.settings import Settings
from smallest.web.logs import logging_config

# By place: the process that has ended there.
ENDED_PIDS: dict[int, int] = {}

settings = Settings.load()  # a wrong environment ends here, before the first fork


class Worker(UvicornWorker):
    # Without a bound one open stream keeps a stopping worker until it is killed, and
    # its connections stay open. 20 s here < 25 s below < 45 s of the platform.
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": 20,
        # A message of a websocket is held in memory as a body is.
        "ws_max_size": settings.max_body_bytes,
    }

    def load_wsgi(self) -> None:
        """A sentence that ends the import of the service ends the master too."""
        try:
            super().load_wsgi()
        except SystemExit as error:
            print(error, file=sys.stderr)
            # Only the first worker: for a second one gunicorn logs a traceback.
            sys.exit(3 if os.environ["WORKER"] == "1" else 0)


host = os.environ.get("HOST", "0.0.0.0" if "PORT" in os.environ else "127.0.0.1")  # noqa: S104
# That of the service and that of /metrics; `--bind` would take the place of both.
bind = [f"{host}:{port}" for port in settings.ports]
wsgi_app = "smallest.main:create_app()"
worker_class = Worker
# More workers open more connections: see db/budget.py before you raise this.
workers = positive_number("WEB_CONCURRENCY", WORKERS)
graceful_timeout = 25
# Longer than the 60 s of the usual load balancers: if the service closed first, the
# load balancer could write into a closed connection.
keepalive = 75
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True
forwarded_allow_ips = ",".join(settings.forwarded_allow_ips)
logconfig_dict = logging_config(settings.log_level)
logconfig_dict["loggers"]["gunicorn.error"] = {"handlers": [], "propagate": True}


def post_worker_init(worker: object) -> None:
    """Keep what lives as long as the process out of garbage collection.

    Modules and models are 100,000 objects: a full collection would stop every request
    for some 70 ms.
    """
    gc.collect()
    gc.freeze()


def pre_fork(server: Any, worker: Any) -> None:
    taken = {each.place for each in server.WORKERS.values()}
    worker.place = next(place for place in count(1) if place not in taken)


def post_fork(server: object, worker: Any) -> None:
    """With preload_app the master may have used the database: see the function."""
    os.environ["WORKER"] = str(worker.age)  # 1 is the first, of one start
    os.environ["PLACE"] = str(worker.place)
    if predecessor := ENDED_PIDS.get(worker.place):
        os.environ["PREDECESSOR_PID"] = str(predecessor)
        worker.log.info("Worker takes the place of process %d", predecessor)
    drop_inherited_connections()


def child_exit(server: Any, worker: Any) -> None:
    """The gauges of a worker end with it, however it ended."""
    # At a reload there is a successor already.
    if len(server.WORKERS) < server.num_workers:
        ENDED.inc()
    mark_process_dead(worker.place)
    ENDED_PIDS[worker.place] = worker.pid


def on_exit(server: object) -> None:
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if folder.name.startswith(f"metrics-{os.getpid()}-"):  # made above
        shutil.rmtree(folder)
