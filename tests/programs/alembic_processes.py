"""`alembic` in many processes at once.

The processes are forked from a server that has imported everything: Python takes
seconds to start, and the commands are to arrive at once.
"""

import asyncio
import multiprocessing
import os
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic.config import main
from shop.db.config.backend import DIALECT

SERVER = multiprocessing.get_context("forkserver")
PATIENT = {
    "DATABASE_CONNECT_TIMEOUT_SECONDS": "20",
    "DATABASE_ACQUIRE_TIMEOUT_SECONDS": "30",
    "DATABASE_STATEMENT_TIMEOUT_SECONDS": "20",
    "DATABASE_CLIENT_TIMEOUT_SECONDS": "30",
}
SERVER.set_forkserver_preload(["alembic.config", "shop.main", "shop.db.migrations"])


def run(arguments, path):
    if DIALECT != "sqlite":  # all connect at once, and each may take its time
        from shop.db.config import timeouts

        timeouts.TIMEOUT_ORDER = ()
        os.environ |= PATIENT
    output = os.open(path, os.O_CREAT | os.O_WRONLY)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main(arguments)


class Alembic:
    """One run of the command."""

    def __init__(self, path, *arguments):
        self._path = path
        self.process = SERVER.Process(target=run, args=(arguments, str(path)))
        self.process.start()

    @property
    def output(self):
        return self._path.read_text() if self._path.exists() else ""

    async def lasts(self, seconds):
        await asyncio.to_thread(self.process.join, seconds)
        return self.process.is_alive()

    async def end(self):
        """The exit code: "0", or the code and the output."""
        await asyncio.to_thread(self.process.join, 120)
        self.process.kill()  # should it hang
        code = self.process.exitcode
        return "0" if code == 0 else f"{code} {self.output}"


@asynccontextmanager
async def alembics():
    """Gives the function that starts one."""
    started = []
    with TemporaryDirectory() as folder:

        def start(*arguments):
            started.append(Alembic(Path(folder, str(len(started))), *arguments))
            return started[-1]

        try:
            yield start
        finally:
            for each in started:
                each.process.kill()
