"""Whether the files of the tests have room in memory."""

import os
import re
from contextlib import suppress
from pathlib import Path

FOLDER = Path("/dev/shm")
# A whole run leaves 2 GiB there, and its servers and services take 6.
ROOM = 10 * 1024**3


def has_room() -> bool:
    with suppress(OSError):
        found = os.statvfs(FOLDER)
        # Docker mounts it so: no script of a service could start.
        is_executable = not found.f_flag & os.ST_NOEXEC
        return is_executable and min(found.f_bavail * found.f_frsize, _free()) > ROOM
    return False


def _free() -> int:
    """The bytes that the machine has, or its container if that has less."""
    text = Path("/proc/meminfo").read_text()
    (kibibytes,) = re.findall(r"^MemAvailable: +(\d+) kB$", text, re.MULTILINE)
    free = int(kibibytes) * 1024
    with suppress(OSError, ValueError):  # no container, or "max"
        limit, used = (
            int(Path(f"/sys/fs/cgroup/memory.{name}").read_text())
            for name in ("max", "current")
        )
        free = min(free, limit - used)
    return free
