"""What becomes of each odd password in each URL of the settings.

Prints a JSON list: variable, password, whether it was written as it is, shape of the
URL, and the password in use or `refused`. What the service shows goes to stderr.
"""

import asyncio
import json
import os
import sys
from contextlib import redirect_stdout, suppress
from urllib.parse import quote

from prometheus_client import REGISTRY, generate_latest
from shop.db import open_database
from shop.db.config.backend import SCHEMES
from shop.db.doctor.checks import SERVER_CHECKS
from shop.db.doctor.report import Report, run_checks
from shop.db.engine.create import create_engine
from shop.settings import Settings
from shop.web.logs import configure_logging

# Nothing listens there: the service says that it cannot connect, and to what.
RIGHT = {
    "DATABASE_URL": f"{SCHEMES[0]}://u@127.0.0.1:1/d",
    "CELERY_BROKER_URL": "redis://127.0.0.1:1/0",
}
VARIABLES = [*RIGHT, "DATABASE_DIRECT_URL", "DATABASE_REPLICA_URLS"]


def outcome_of(variable, *, connects):
    try:
        settings = Settings.load()
    except SystemExit as stop:
        print(stop)
        return "refused" if variable in str(stop) else str(stop)
    print(repr(settings), settings)
    if variable == "CELERY_BROKER_URL":
        return password_of_broker(settings)
    server = settings.server
    if variable == "DATABASE_DIRECT_URL":
        server = settings.direct()
    if variable == "DATABASE_REPLICA_URLS":
        (server,) = settings.replicas.values()
    print(server, server.name, server.host, server.user, server.database)
    if connects:
        asyncio.run(connect(settings, server))
    return asyncio.run(server.password())


def password_of_broker(settings):
    from kombu import Connection

    connection = Connection(settings.celery("shop", {})["broker_url"])
    print(connection.as_uri(), connection)
    return connection.password


async def connect(settings, server):
    """As the doctor and the service do, in vain."""
    engine = create_engine(server, settings.limits)
    print(engine.url, engine)
    await run_checks(engine, settings, SERVER_CHECKS, {}, Report())
    async with open_database(settings) as database:
        with suppress(Exception):
            await database.ping()
    print(generate_latest(REGISTRY).decode())


def main(passwords, shapes):
    configure_logging("DEBUG")
    outcomes = []
    for variable in VARIABLES:
        if variable.lower() not in Settings.model_fields:
            continue
        is_broker = variable == "CELERY_BROKER_URL"
        parts = {"scheme": "redis" if is_broker else SCHEMES[0]}
        parts["name"] = "0" if is_broker else "d"
        for number, password in enumerate(passwords):
            encoded = quote(password, safe="")
            for shape in (None, *shapes):
                written = {"password": password if shape else encoded}
                url = (shape or shapes[0]).format(**parts, **written)
                os.environ.update({**RIGHT, variable: url})
                outcome = outcome_of(variable, connects=not shape and number < 2)
                case = [variable, password, bool(shape), shape or shapes[0]]
                outcomes.append([*case, outcome])
                del os.environ[variable]
    return outcomes


with redirect_stdout(sys.stderr):
    # Without it: the doctor reads the arguments as well.
    found = main(*json.loads(sys.argv.pop(1)))
print(json.dumps(found))
