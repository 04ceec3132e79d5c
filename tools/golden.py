"""Writes the two golden renderings: run it by `make golden`, and review the diff."""

import os
import re
import shutil
import tempfile
from pathlib import Path

from tests.support.rendering import ROOT, Answers, files, isolate, render, snapshot

GOLDEN = ROOT / "tests" / "golden"
# The fewest and the most files and lines that answers can ask for.
RENDERINGS: dict[str, Answers] = {
    "smallest": {"driver": "aiosqlite"},
    "largest": {
        "driver": "asyncpg",
        "cloud": "aws_aurora",
        "runtime": "kubernetes",
        "pooler": "transaction",
        "with_replicas": True,
        "with_celery": True,
        "with_tracing": True,
    },
}


def golden(template: Path, folder: Path, name: str) -> dict[str, bytes]:
    """Render one; what differs from run to run is taken out."""
    rendering = files(render(template, folder / name, RENDERINGS[name]))
    answers = rendering[".copier-answers.yml"].decode()
    lines = re.sub(r"^_(commit|src_path): .*\n", "", answers, flags=re.MULTILINE)
    return rendering | {".copier-answers.yml": lines.encode()}


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ.update(isolate(folder / "home"))
        template = snapshot(folder / "template")
        for name in RENDERINGS:
            shutil.rmtree(GOLDEN / name, ignore_errors=True)
            for path, content in golden(template, folder, name).items():
                (GOLDEN / name / path).parent.mkdir(parents=True, exist_ok=True)
                (GOLDEN / name / path).write_bytes(content)


if __name__ == "__main__":
    main()
