"""The fastest start: FastAPI with the imports of the service, and no use of them."""

# There is no service where mypy runs.
# mypy: disable-error-code="import-not-found"

import importlib
import os

from fastapi import FastAPI

for name in os.environ["BENCH_IMPORTS"].split():
    importlib.import_module(name)


def app() -> FastAPI:
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    app = FastAPI()
    app.add_api_route("/livez", live)
    return app
