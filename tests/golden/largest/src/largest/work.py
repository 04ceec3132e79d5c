"""Starts a worker, `python -m` and the name of this module, or with `beat` the clock.

There may be any number of workers, and one clock: it asks for the periodic tasks.
"""

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from threading import Timer
from typing import Any

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    # Where the processes share their figures: in memory, and before prometheus_client
    # is imported, which looks only then.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(
        prefix=f"metrics-{os.getpid()}-",
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    )
    atexit.register(shutil.rmtree, os.environ["PROMETHEUS_MULTIPROC_DIR"])

from celery import signals  # type: ignore[import-untyped]
from prometheus_client import start_http_server

from .logs import configure_logging
from .settings import Settings
from .task_figures import Figures
from .worker import app, settings

# What Celery's command line would read, past the check of the settings.
UNCHECKED = ("APP", "BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND")
# What processes of a worker tell each other, and nobody needs.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def _configure_logging(**_: Any) -> None:
    configure_logging(Settings.load().log_level)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        # Each task has a line of ours, when it has ended.
        logging.getLogger(name).setLevel("WARNING")


def _end_in_time(how: str, **_: Any) -> None:
    """SIGTERM lets tasks end; those that do not are put back when their time is up."""
    if how == "Warm":
        signals.worker_shutting_down.disconnect(_end_in_time)
        seconds = settings.celery_shutdown_seconds
        timer = Timer(seconds, os.kill, (os.getpid(), signal.SIGQUIT))
        timer.daemon = True
        timer.start()


def main() -> None:
    signals.setup_logging.connect(_configure_logging)
    signals.worker_shutting_down.connect(_end_in_time)
    Settings.load()  # a wrong environment ends here, before the first fork
    for name in UNCHECKED:
        os.environ.pop(name, None)
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments = ["worker", *arguments]
    command, *options = arguments
    if command == "worker":
        options = [*QUIET, *options]
        _serve_figures()
    sys.exit(app.start(["--quiet", command, *options]))


def _serve_figures() -> None:
    port = settings.celery_metrics_port
    try:
        if port:
            start_http_server(port, registry=Figures())
    except OSError as error:
        sys.exit(f"CELERY_METRICS_PORT={port}: {error.strerror}; 0 is none.")


if __name__ == "__main__":
    main()
