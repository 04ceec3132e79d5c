"""The rows of the table of faults that are named, or all that this driver knows.

The program prints the answer of each row, its duration and what the answers say. The
service writes its log to stderr, with the name of the row as the id of the request.
"""

import asyncio
import json
import logging
import sys
from importlib import import_module
from time import monotonic

import uvloop
from prometheus_client import generate_latest
from pydantic import SecretStr
from rows import BODIES, CANARY, ROWS, SERVERS, SETTINGS, current, laboratory
from shop.db.config.backend import DRIVER
from shop.db.engine.create import create_engine
from shop.main import create_app
from shop.web.logs import configure_logging

for module in ("connects", "constraints", "losses", "waits"):
    import_module(module)

# SQLite has one writer, and so one fault at a time. More of them on a server would wait
# for the processor, and a limit of 2 s would pass for a reason that is not the row's.
SIDE_BY_SIDE = asyncio.Semaphore(8 if DRIVER in SERVERS else 1)


async def provoke(name, laboratory):
    current.set(name.replace(" ", "_"))
    async with SIDE_BY_SIDE:
        began = monotonic()
        try:
            answers = await ROWS[name](laboratory)
        except Exception as error:
            raise RuntimeError(name) from error
        return answers, round(monotonic() - began, 1)


def shown():
    """What others may read of this process: metrics, API document, representations."""
    changes = {"database_password": SecretStr(CANARY)} if DRIVER in SERVERS else {}
    settings = SETTINGS.model_copy(update=changes)
    objects = [
        settings,
        vars(settings),
        create_engine(settings.server, settings.limits),
    ]
    return [
        generate_latest().decode(),
        json.dumps(create_app(settings).openapi()),
        *(f"{each} {each!r}" for each in (*objects, settings.server)),
    ]


async def main():
    configure_logging("INFO")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs what we ask
    async with laboratory() as database, asyncio.TaskGroup() as group:
        names = sys.argv[1:] or ROWS
        tasks = {name: group.create_task(provoke(name, database)) for name in names}
    outcomes = {name: task.result() for name, task in tasks.items()}
    report = {
        "answers": {name: answers for name, (answers, _) in outcomes.items()},
        "seconds": {name: seconds for name, (_, seconds) in outcomes.items()},
        "bodies": BODIES,
        "shown": shown(),
    }
    print(json.dumps(report))


uvloop.run(main())
