"""Compiled libraries for many environments, which would compile 1,000 modules each."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path


def share(environment: Path, store: Path) -> None:
    """Take over what others have compiled, compile the rest, and leave it to others.

    Python takes what was compiled from a source of that size and age. Here sources are
    links into one cache, and what is compiled is never written to, but replaced.
    """
    (libraries,) = environment.glob("lib/python*/site-packages")
    _link(store, libraries)
    # Some libraries bring files that are not meant to be compiled.
    command = (environment / "bin" / "python", "-m", "compileall", "-q", libraries)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
    _link(libraries, store)


def _link(source: Path, target: Path) -> None:
    for compiled in source.rglob("__pycache__/*.pyc"):
        place = target / compiled.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.link(compiled, place)
