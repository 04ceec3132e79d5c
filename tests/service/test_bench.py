"""The benchmark runs to its end. What it measures here is of no account."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.bench import BEGIN, END, PARTS
from benchmarks.plots import write_plots
from benchmarks.report import HEAD, Row, as_markdown, at_least, at_most
from tests.support.rendering import ROOT


def bench(*arguments: str, minutes: int = 10) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * minutes,
    )


@pytest.mark.boot
def test_bench_measures_parts_and_writes_their_figures(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    parts = ("workloads", "refusal", "observing")
    done = bench(*parts, "--quick", "--docs", str(tmp_path))

    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "performance" / "figures.json").read_text())
    *compared, rejection, observing = figures["rows"]
    assert len(compared) >= 5
    for row in compared:
        assert row["workload"] in done.stdout
        assert {*row["contenders"]} == {"ours", "articles", "floor", "bare"}
    # A rejection is no answer that has a latency.
    assert rejection["contenders"]["ours"].keys() == {"rate", "refused", "cpu"}
    assert observing["contenders"]["ours"]["p99"] > 0
    ET.parse(tmp_path / "performance" / "workloads.svg")  # noqa: S314 (our own)
    before, _, rest = page.read_text().partition(BEGIN)
    written, _, after = rest.partition(END)
    plots, _, table = written.partition("(performance/workloads.svg)\n")
    assert (before, after) == ("before\n", "\nafter\n")
    assert plots.strip().startswith("![")
    assert table.strip() in done.stdout


@pytest.mark.boot
@pytest.mark.weekly
def test_each_part_runs_to_its_end() -> None:
    done = bench("--quick", minutes=30)

    assert done.returncode == 0, done.stderr
    for part in PARTS:
        assert f"\n[{part}: " in f"\n{done.stdout}"


def test_help_names_each_part() -> None:
    done = bench("--help")

    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in PARTS)


def test_unknown_part_is_named() -> None:
    done = bench("nothing")

    assert done.returncode == 2
    assert "no such part: nothing" in done.stderr


@pytest.mark.parametrize(
    ("target", "value", "result"),
    [
        (at_least(2), 2.0, "reached"),
        (at_least(2), 1.9, "not reached"),
        (at_most(60), 60, "reached"),
        (at_most(60), 61, "not reached"),
        (None, 1, ""),
    ],
)
def test_table_says_what_is_reached(target: object, value: float, result: str) -> None:
    row = Row("workloads", "asyncpg", "read one", value, "x", target)  # type: ignore[arg-type]
    head, _, line = as_markdown([row]).splitlines()

    assert [cell.strip() for cell in head.strip("|").split("|")] == [*HEAD]
    assert line.strip("|").split("|")[-1].strip() == result


def test_plot_has_a_bar_for_each_application_of_a_row(tmp_path: Path) -> None:
    rates = {"ours": {"rate": 10.0}, "articles": {"rate": 5.0}}
    both = Row("overload", "asyncpg", "rude", 1, "of peak", contenders=rates)
    one = Row(
        "overload",
        "asyncpg",
        "polite",
        1,
        "of peak",
        contenders={"ours": rates["ours"]},
    )
    write_plots(tmp_path, [both, one])
    tree = ET.parse(tmp_path / "overload.svg")  # noqa: S314 (our own)

    bars = [float(each.get("width", 0)) for each in tree.findall(".//{*}rect")]
    legend, bars = bars[:2], bars[2:]
    assert len(legend) == 2
    assert bars[0] == bars[2] == 2 * bars[1]
