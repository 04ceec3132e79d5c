"""Measures the rendered service beside others, in one run, and prints ratios.

Absolute numbers are those of the machine. Ratios hold on a busy one as well, because
all take turns in short rounds, and medians are compared.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from benchmarks import costs, exports, parts
from benchmarks.parts import FULL, QUICK, Part
from benchmarks.plots import write_plots
from benchmarks.projects import workshop
from benchmarks.report import Row, as_markdown
from tests.support.rendering import ROOT

PARTS: dict[str, Part] = {
    part.__name__: part
    for part in (
        parts.workloads,
        parts.drivers,
        parts.pooler,
        parts.clients,
        parts.overload,
        costs.refusal,
        parts.guards,
        exports.export,
        costs.start,
        costs.replicas,
        costs.tasks,
        costs.observing,
        costs.tracing,
    )
}
DOCS = ROOT / "docs"
BEGIN = "<!-- What benchmarks/bench.py writes. -->"
END = "<!-- Its end. -->"


def main() -> None:
    arguments = parse()
    names = arguments.part or list(PARTS)
    effort = QUICK if arguments.quick else FULL
    rows: list[Row] = []
    failed: list[str] = []
    began = perf_counter()
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as folder,
        workshop(Path(folder)) as shop,
    ):
        for name in names:
            started = perf_counter()
            try:
                rows += PARTS[name](shop, effort)
            except (RuntimeError, OSError, ValueError) as error:
                failed.append(name)  # the others are worth their time
                print(f"{name} failed: {error}", file=sys.stderr)
            print(f"[{name}: {perf_counter() - started:.0f} s]", flush=True)
    print(f"[all: {perf_counter() - began:.0f} s]\n\n{as_markdown(rows)}")
    if arguments.docs:
        write(arguments.docs, rows)
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


def parse() -> argparse.Namespace:
    listed = "\n".join(f"  {name:12}{part.__doc__}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench",
        description="Measure the rendered service beside others, in one run.",
        epilog=f"parts:\n{listed}\n\nA whole run takes 15 minutes, and writes docs/.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="*", help="one or more of those below, or all")
    parser.add_argument(
        "--quick", action="store_true", help="one short round: a check of the bench"
    )
    parser.add_argument(
        "--docs", type=Path, metavar="FOLDER", help="write figures and plots there"
    )
    arguments = parser.parse_args()
    if unknown := {*arguments.part} - PARTS.keys():
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if not arguments.part and not arguments.quick:
        arguments.docs = arguments.docs or DOCS
    return arguments


def write(docs: Path, rows: list[Row]) -> None:
    """The figures, the plots, and those of performance.md if that is there."""
    folder = docs / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version()}
    figures = {"machine": machine, "rows": [asdict(row) for row in rows]}
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    titles = write_plots(folder, rows)
    page = docs / "performance.md"
    if page.exists():
        plots = [
            f"![{title}](performance/{name}.svg)" for name, title in titles.items()
        ]
        before, _, rest = page.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        written = "\n\n".join([BEGIN, *plots, as_markdown(rows), END])
        page.write_text(f"{before}{written}{after}")


if __name__ == "__main__":
    main()
