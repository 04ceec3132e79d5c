"""Every error of the runbook that this driver knows: provoked, and cured.

For the words of the log, the output has what each provocation and each cure has raised,
and what the process has written to stderr meanwhile.
"""

import asyncio
import gc
import io
import json
import logging
import sys
from contextlib import redirect_stderr
from importlib import import_module

from entries import CURES, PROVOCATIONS, SETTINGS, run
from shop.db import open_database
from shop.models import Order
from shop.web.errors.handlers import EXCEPTION_HANDLERS
from shop.web.logs import configure_logging
from sqlalchemy.exc import StatementError


def outcome(function):
    raised = None
    with redirect_stderr(io.StringIO()) as log:
        configure_logging("WARNING")
        try:
            run(function)
        except Exception as error:
            raised = classes(error)
            answer(error)
        gc.collect()
    return {"name": function.__name__, "raised": raised, "log": log.getvalue()}


def answer(error):
    """As the service does it, and the server around it."""
    try:
        asyncio.run(EXCEPTION_HANDLERS[StatementError](None, error))
    except Exception:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")


def classes(error):
    """Its own class and those of what is behind it."""
    behind = error.__cause__ or error.__context__
    return [type(error).__name__, *(classes(behind) if behind else ())]


async def prepare():
    async with open_database(SETTINGS) as database, database.write() as session:
        session.add(Order(customer="ada", idempotency_key="taken"))


for module in ("attributes", "loops", "pool", "servers", "swallowed", "tasks"):
    import_module(module)
gc.disable()  # what is lost is found when we look for it
asyncio.run(prepare())
json.dump(
    {
        words: {
            "provocations": [outcome(function) for function in provocations],
            "cures": [outcome(function) for function in CURES[words]],
        }
        for words, provocations in PROVOCATIONS.items()
    },
    sys.stdout,
)
