"""The service in one process: `python -m` and the name of this package."""

import gc
import os
import signal
import sys

import uvicorn

from .main import create_app
from .settings import Settings

if __name__ == "__main__":
    settings = Settings.load()
    app = create_app(settings)
    # Keep what lives as long as the process out of garbage collection: modules and
    # models are 100,000 objects, a full collection would stop requests for some 70 ms.
    gc.collect()
    gc.freeze()
    host = os.environ.get("HOST", "0.0.0.0")  # noqa: S104
    # With a port of /metrics, if there is one.
    sockets = [
        uvicorn.Config(app, host=host, port=port, log_config=None).bind_socket()
        for port in settings.ports
    ]
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        # A message of a websocket is held in memory as a body is.
        ws_max_size=settings.max_body_bytes,
        forwarded_allow_ips=[*settings.forwarded_allow_ips],
        # Longer than the platform keeps a connection that it does not use.
        timeout_keep_alive=75,
        # The platform kills after 10 s; what is cut before can still roll back.
        timeout_graceful_shutdown=7,
    )
    server = uvicorn.Server(config)
    # uvicorn raises the signal that has ended it once more: the exit code would be that
    # of a process that was killed.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    server.run(sockets)
    if not server.started:
        sys.exit(3)
