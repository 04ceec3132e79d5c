"""Secrets in files: read anew, so that a rotation needs no restart."""

import os
from contextlib import suppress
from pathlib import Path


def read_secret(folder: Path, variable: str) -> str:
    """The file of a variable as it is now; empty where the environment has it."""
    if any(name.upper() == variable for name, text in os.environ.items() if text):
        return ""
    with suppress(OSError):  # no folder, or a file that is replaced right now
        for path in folder.iterdir():
            if path.name.upper() == variable:
                return path.read_text().strip()
    return ""
