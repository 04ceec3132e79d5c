"""The service in one process: `python -m` and the name of this package."""

import gc
import os

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
    uvicorn.run(
        app,
        host=os.environ.get("HOST", "0.0.0.0"),  # noqa: S104
        port=int(os.environ.get("PORT", "8000")),
        workers=1,
        log_config=None,
        access_log=False,
        forwarded_allow_ips=[*settings.forwarded_allow_ips],
        # Longer than the platform keeps a connection that it does not use.
        timeout_keep_alive=75,
        # The platform kills after 10 s; what is cut before can still roll back.
        timeout_graceful_shutdown=7,
    )
