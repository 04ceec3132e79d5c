"""Runs programs in forks of a process that has imported the libraries already.

Each line of the input is a command: `argv` of `python`, `environment`, and the files
for its output. Its exit code is the answer; the end of the input is the end.
"""

import gc
import importlib
import json
import os
import runpy
import sys
from contextlib import suppress

# Not what looks at the environment when it is imported: Celery, prometheus_client.
LIBRARIES = """
    alembic.command asyncpg psycopg aiomysql asyncmy aiosqlite fastapi.testclient httpx
    httpx2 pydantic_settings pytest pytest_asyncio sqlalchemy.dialects.mysql
    sqlalchemy.dialects.postgresql sqlalchemy.dialects.sqlite sqlalchemy.ext.asyncio
    uvicorn uvloop
"""


def run(argv, environment, stdout, stderr):
    """As `python` does, up to the end of the process."""
    for number, path in ((1, stdout), (2, stderr)):
        with open(path, "wb") as file:  # noqa: PTH123
            os.dup2(file.fileno(), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(environment)
    more = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    is_module = argv[0] == "-m"
    first = os.getcwd() if is_module else os.path.dirname(argv[0])  # noqa: PTH109, PTH120
    sys.path[:1] = [first, *more]
    importlib.invalidate_caches()
    if is_module:
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


def main():
    for name in LIBRARIES.split():
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            return run(**json.loads(line))
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


main()
