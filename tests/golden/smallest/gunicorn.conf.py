"""`gunicorn` in this directory reads this file and starts the service."""

import gc
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    # Where the workers share their figures: in memory, and before prometheus_client
    # is imported, which looks only then.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(
        prefix=f"metrics-{os.getpid()}-",
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    )

from prometheus_client.multiprocess import mark_process_dead

from smallest.db.budget import WORKERS
from smallest.db.engine import forget_connections
from smallest.logs import logging_config
from smallest.settings import Settings

settings = Settings.load()  # a wrong environment ends here, before the first fork


class Worker(UvicornWorker):
    # Without a bound one open stream keeps a stopping worker until it is killed, and
    # nobody closes its connections. 20 s here < 25 s below < 45 s of the platform.
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": 20,
    }

    def load_wsgi(self) -> None:
        """What ends the import of the service, with a sentence, ends the master too."""
        try:
            super().load_wsgi()
        except SystemExit as error:
            print(error, file=sys.stderr)
            # Not by each: of a second one gunicorn would show a traceback.
            sys.exit(3 if os.environ["WORKER"] == "1" else 0)


wsgi_app = "smallest.main:create_app()"
worker_class = Worker
# More workers open more connections: see db/budget.py before you raise this.
workers = int(os.environ.get("WEB_CONCURRENCY", WORKERS))
graceful_timeout = 25
# Longer than the 60 s of the usual load balancers: whoever closes first decides
# whether the other one writes into a closed connection.
keepalive = 75
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
control_socket_disable = True
logconfig_dict = logging_config(settings.log_level)
logconfig_dict["loggers"]["gunicorn.error"] = {"handlers": [], "propagate": True}


def post_worker_init(worker: object) -> None:
    """Spare the garbage collector what lives as long as the process.

    Modules and models are 100,000 objects; looking through them again and again
    stops every request for some 70 ms.
    """
    gc.collect()
    gc.freeze()


def post_fork(server: object, worker: UvicornWorker) -> None:
    """With preload_app the master may have used the database: see the function."""
    forget_connections()
    os.environ["WORKER"] = str(worker.age)  # 1 is the first, of one start


def child_exit(server: object, worker: UvicornWorker) -> None:
    """What a worker had in use it has no more, however it ended."""
    mark_process_dead(worker.pid)


def on_exit(server: object) -> None:
    folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if folder.name.startswith(f"metrics-{os.getpid()}-"):  # made above
        shutil.rmtree(folder)
