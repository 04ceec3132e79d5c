"""The processes of a server, which a test stops."""

import os
import signal
import time
from pathlib import Path


class Process:
    """A server as it is under a debugger: stopped, with its children, by a signal."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped: list[int] = []

    def freeze(self) -> None:
        self._stop(self._pid)
        for child in children(self._pid):  # there will be no more of them now
            self._stop(child)

    def heal(self) -> None:
        while self._stopped:
            os.kill(self._stopped.pop(), signal.SIGCONT)

    def _stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self._stopped.append(pid)
        stat = Path(f"/proc/{pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] not in "TZ":
            time.sleep(0.001)


def children(pid: int) -> set[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return {int(child) for child in text.split()}
