"""The processes of a server: stopped, ended and started again, on the same port."""

import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Self


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


class Daemon:
    """A server that has its port for good, however often it is killed and started."""

    def __init__(
        self,
        command: list[str],
        folder: Path,
        *,
        user: str | None = None,
        last_signal: int = signal.SIGKILL,
        port_option: tuple[str, ...] = ("--port={}",),
    ) -> None:
        self.command, self.folder = command, folder
        self.log = folder.with_name(f"{folder.name}.log")
        # Servers refuse to run as root: become the user of Debian's package.
        self.user = user if os.geteuid() == 0 else None
        self._last_signal = last_signal
        self._port_option = port_option
        self.process: subprocess.Popen[bytes] | None = None
        self._frozen: Process | None = None
        # Bound and never listening, it keeps the port from others while the server is
        # down, and refuses who connects.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port: int = self._place.getsockname()[1]

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700)
        if self.user:
            os.chown(self.folder, pwd.getpwnam(self.user).pw_uid, -1)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._place.close()

    @property
    def pid(self) -> int:
        """Of the server, which must run."""
        if not self.is_running:
            text = self.log.read_text() if self.log.exists() else ""
            raise RuntimeError(f"{self.folder.name} does not run.\n{text}")
        assert self.process
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def prepare(self, *command: str | Path) -> None:
        """Run to its end what makes the server's files, as their owner."""
        done = subprocess.run(
            command,
            user=self.user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed:\n{done.stdout}")

    def launch(self) -> None:
        port = [part.format(self.port) for part in self._port_option]
        with self.log.open("a") as output:
            self.process = subprocess.Popen(
                [*self.command, *port],
                user=self.user,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Else Ctrl-C at the terminal would reach it before those who use it.
                start_new_session=True,
            )

    def freeze(self) -> None:
        self.thaw()
        self._frozen = Process(self.pid)
        self._frozen.freeze()

    def thaw(self) -> None:
        if self._frozen:
            self._frozen.heal()
            self._frozen = None

    def kill(self) -> None:
        """End its children and then itself, neither of which can say a word."""
        self._frozen = None
        if not self.process or self.process.poll() is not None:
            return
        pid = self.process.pid
        Process(pid).freeze()  # so that it starts no more of them
        for child in children(pid):
            os.kill(child, signal.SIGKILL)
        os.kill(pid, self._last_signal)
        os.kill(pid, signal.SIGCONT)
        self.process.wait(timeout=30)
