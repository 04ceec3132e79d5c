"""Reads of one process, in the scenarios that are named as arguments.

The program prints the outcome of each scenario.
"""

import asyncio
import json
import sys
from contextlib import ExitStack, suppress
from itertools import count
from time import monotonic

import replica_failures
import replica_gtids
import replica_reads
import replica_sessions
import uvloop
from replica_servers import PRIMARY, Lab
from server_sessions import PROBES
from shop.db.replicas import replica as replica_module
from shop.db.replicas import router as router_module
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

MODULES = (replica_reads, replica_failures, replica_gtids, replica_sessions)
SCENARIOS = {name: each for module in MODULES for name, each in vars(module).items()}
# Short, so that the tests see its end.
BAN_SECONDS = 1.5


async def main(names):
    replica_module.BAN_SECONDS = BAN_SECONDS
    router_module.export = lambda *_: None  # which would take over what is counted
    found = {}
    with ExitStack() as stack:
        lab = Lab(stack)
        with suppress(DBAPIError):  # another run has made it
            async with lab.engines[PRIMARY].begin() as connection:
                await connection.execute(CreateTable(PROBES))
        (last,) = await lab.execute(PRIMARY, "SELECT coalesce(max(id), 0) FROM probes")
        lab.numbers = count(last + 1)
        for name in names:
            began = monotonic()
            found[name] = await asyncio.create_task(SCENARIOS[name](lab))
            print(f"{name}: {monotonic() - began:.1f} s", file=sys.stderr)
        for engine in lab.engines:
            await engine.dispose()
    print(json.dumps(found))


uvloop.run(main(sys.argv[1:]))
