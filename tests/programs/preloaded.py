"""Starts programs by forks of a process that has imported the libraries already.

Each line of the input is a command: `argv` of `python`, `environment`, the `folder` of
a service, and the files for its output. The answers are `start PID`, in the order of
the commands, and `end PID CODE`. The end of the input is the end of this process, not
of the programs.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import site
import sys
from types import ModuleType

# Those of every service, in one version: but not prometheus_client, which looks at the
# environment when it is imported. Those that do so all the same are in
# tests/support/preloaded.py: AT_IMPORT.
LIBRARIES = """
    alembic.command fastapi.testclient httpx httpx2 pydantic_settings pytest
    pytest_asyncio sqlalchemy.dialects.mysql sqlalchemy.dialects.postgresql
    sqlalchemy.dialects.sqlite sqlalchemy.ext.asyncio uvicorn
"""
STANDARD = [path for path in sys.path[1:] if path.startswith(sys.base_prefix)]
ENDED = {signal.SIGCHLD}
OTHER = sys.prefix


def run(argv, environment, folder, stdout, stderr):
    """As `python` does, up to the end of the process.

    Only `sys.flags`, `sys.orig_argv` and the command line are those of this process.
    """
    outputs = {path: os.open(path, os.O_WRONLY) for path in {stdout, stderr}}
    os.dup2(outputs[stdout], 1)
    os.dup2(outputs[stderr], 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)  # noqa: SIM115 (the old one has read ahead)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    prefix = f"{folder}/.venv"
    sys.prefix = sys.exec_prefix = prefix
    sys.executable = f"{prefix}/bin/python"
    more = [path for path in environment.get("PYTHONPATH", "").split(":") if path]
    is_module = argv[0] == "-m"
    is_code = argv[0] == "-c"
    first = folder if is_module or is_code else os.path.dirname(argv[0])  # noqa: PTH120
    sys.path[:] = [first, *more, *STANDARD]
    version = "python{}.{}".format(*sys.version_info[:2])
    site.addsitedir(f"{prefix}/lib/{version}/site-packages")
    for module in [*sys.modules.values()]:
        # The rest of a library comes from this environment: the other may be gone.
        if isinstance(places := getattr(module, "__path__", None), list):
            places[:] = [each.replace(OTHER, prefix, 1) for each in places]
    importlib.invalidate_caches()
    if is_module:
        sys.argv = argv[1:]
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    elif is_code:
        sys.argv = ["-c", *argv[2:]]
        sys.modules["__main__"] = module = ModuleType("__main__")
        exec(argv[1], vars(module))  # noqa: S102
    else:
        sys.argv = argv
        runpy.run_path(argv[0], run_name="__main__")


def main():
    for name in LIBRARIES.split():
        importlib.import_module(name)
    answers = os.dup(1)

    def reap(*_):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            code = os.waitstatus_to_exitcode(status)
            os.write(answers, f"end {pid} {code}\n".encode())

    signal.signal(signal.SIGCHLD, reap)
    gc.freeze()
    for line in sys.stdin:
        # The answer to the start comes first, however short the program is.
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDED)
        pid = os.fork()
        if pid:
            os.write(answers, f"start {pid}\n".encode())
        else:
            os.close(answers)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDED)
        if not pid:
            return run(**json.loads(line))
    return None


main()
