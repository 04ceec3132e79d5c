"""Starts a worker: `python -m` and the name of this package; with `beat` the scheduler.

There may be several workers, and one scheduler: it publishes the periodic tasks.
"""

# ruff: noqa: E402 (prometheus_client must be set up before other imports)

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
    # The processes share their metrics by files in memory. prometheus_client reads the
    # variable when it is imported, hence before the other imports.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(
        prefix=f"metrics-{os.getpid()}-",
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None,  # noqa: S108
    )
    atexit.register(shutil.rmtree, os.environ["PROMETHEUS_MULTIPROC_DIR"])

from billiard import current_process  # type: ignore[import-untyped]
from celery import signals  # type: ignore[import-untyped]
from celery.bin.celery import celery as command_line  # type: ignore[import-untyped]
from prometheus_client import start_http_server, values

# A file for each place of a process, not for each process: the successor of a process
# goes on with its counters, so the number of files stays the same.
values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
    lambda: getattr(current_process(), "index", "parent")
)

from ..features import CONFIGURE
from ..settings import Settings
from ..web.logs import configure_logging
from ..web.metrics import AllProcesses
from .app import PACKAGE
from .metrics import begin_process, report_killed
from .startup_check import check_budget_before_fork

# Celery's command line would read these past the checks of the settings.
CELERY_CLI_VARIABLES = (
    *("APP", "BROKER_URL", "CONFIG_MODULE", "LOADER", "RESULT_BACKEND"),
)
# Messages between the processes of a worker that nothing here needs.
WORKER_FLAGS = ("--without-gossip", "--without-mingle", "--without-heartbeat")


def main() -> None:
    settings = Settings.load()  # a wrong environment ends here, before the first fork
    # Before anything else that a process opens, as its database: the gauges of one that
    # was killed would be those of its successor.
    signals.worker_process_init.connect(begin_process)
    for configure in CONFIGURE:
        configure(settings)

    def set_up_logging(**_: Any) -> None:
        configure_logging(settings.log_level)
        for name in ("celery.worker.strategy", "celery.app.trace"):
            # metrics.py logs a line for each task.
            logging.getLogger(name).setLevel("WARNING")

    def end_in_time(how: str, **_: Any) -> None:
        """SIGTERM lets tasks end; after a while SIGQUIT puts the others back."""
        if how == "Warm":
            signals.worker_shutting_down.disconnect(end_in_time)
            kill = (os.getpid(), signal.SIGQUIT)
            timer = Timer(settings.celery_shutdown_seconds, os.kill, kill)
            timer.daemon = True
            timer.start()

    signals.task_retry.connect(report_killed)
    signals.task_failure.connect(report_killed)
    signals.setup_logging.connect(set_up_logging, weak=False)
    signals.worker_shutting_down.connect(end_in_time, weak=False)
    for name in CELERY_CLI_VARIABLES:
        os.environ.pop(name, None)
    arguments = sys.argv[1:]
    if not arguments or arguments[0].startswith("-"):
        arguments = ["worker", *arguments]
    command, *options = arguments
    if command == "worker":
        options = [*WORKER_FLAGS, *options]
        configure_logging(settings.log_level)
        check_budget_before_fork(settings)
        _serve_metrics(settings.celery_metrics_port)
    # Not celery.start(), whose exit code is always 0.
    command_line(["--quiet", f"--app={PACKAGE}.worker.app", command, *options])


def _serve_metrics(port: int) -> None:
    try:
        if port:
            start_http_server(port, registry=AllProcesses())
    except OSError as error:
        sys.exit(f"CELERY_METRICS_PORT={port}: {error.strerror}; 0 is none.")


if __name__ == "__main__":
    main()
