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
# Time for a probe on a busy machine, but where a replica shall be found to be silent.
LIMITS_OF_A_PROBE = (
    "PROBE_TIMEOUT_SECONDS",
    "PROBE_TTL_SECONDS",
    "SUSPECT_AFTER_SECONDS",
)
PROBE_SECONDS = 5
OF_SILENCE = {
    "silent_replica_delays_no_read",
    "session_leaves_a_replica_that_was_banned",
    "probe_that_hangs_as_it_connects_is_repeated",
}


async def main(names):
    replica_module.BAN_SECONDS = BAN_SECONDS
    router_module.export = lambda *_: None  # which would take over what is counted
    found = {}
    usual = {name: getattr(replica_module, name) for name in LIMITS_OF_A_PROBE}
    with ExitStack() as stack:
        lab = Lab(stack)
        with suppress(DBAPIError):  # another run has made it
            async with lab.engines[PRIMARY].begin() as connection:
                await connection.execute(CreateTable(PROBES))
        (last,) = await lab.execute(PRIMARY, "SELECT coalesce(max(id), 0) FROM probes")
        lab.numbers = count(last + 1)
        for name in names:
            began = monotonic()
            limits = (
                usual if name in OF_SILENCE else dict.fromkeys(usual, PROBE_SECONDS)
            )
            vars(replica_module).update(limits)
            found[name] = await asyncio.create_task(SCENARIOS[name](lab))
            print(f"{name}: {monotonic() - began:.1f} s", file=sys.stderr)
        for engine in lab.engines:
            await engine.dispose()
    print(json.dumps(found))


uvloop.run(main(sys.argv[1:]))
