"""Bar charts of the rows, as SVG: one bar for each contender of a workload."""

from html import escape
from pathlib import Path

from benchmarks.report import Row
from benchmarks.serving import CONTENDERS

TITLES = {
    "ours": "rendered service",
    "articles": "articles' wiring",
    "floor": "FastAPI and Core alone",
    "bare": "bare driver",
}
COLORS = dict(zip(TITLES, ("#1f6feb", "#d29922", "#8b949e", "#b1bac4"), strict=True))
# Readable on a light page and on a dark one.
TEXT = "#6e7781"
WIDTH, LABEL, BAR, GAP, TOP = 760, 230, 14, 14, 64
PLOTS = {
    "workloads": "Requests a second, asyncpg, one worker, 10 clients",
    "drivers": "Requests a second, other drivers, one worker, 10 clients",
    "clients": "Requests a second, by clients, one row by its key",
    "overload": "Answers a second, statements of 100 ms, 10 connections",
}


# Of the other drivers, so that the chart fits a screen.
IN_SHORT = ("read one, kept statement", "write one (POST /orders)")


def write_plots(folder: Path, rows: list[Row]) -> dict[str, str]:
    """Titles of the plots that are written, by the names of their files."""
    written = {}
    for part, title in PLOTS.items():
        compared = [
            row
            for row in rows
            if row.part == part
            and row.contenders
            and (part != "drivers" or row.workload in IN_SHORT)
        ]
        if compared:
            (folder / f"{part}.svg").write_text(bars(title, compared))
            written[part] = title
    return written


def bars(title: str, rows: list[Row]) -> str:
    """Each row is a group of bars, the longest of all as wide as the chart."""
    names = [name for name in CONTENDERS if name in rows[0].contenders]
    most = max(each["rate"] for row in rows for each in row.contenders.values())
    marks = [text(0, 18, title, size=15), *legend(names)]
    y = TOP
    for row in rows:
        is_several = len({row.setting for row in rows}) > 1
        label = f"{row.setting}: {row.workload}" if is_several else row.workload
        own = [name for name in names if name in row.contenders]
        marks.append(text(0, y + BAR * len(own) / 2 + 4, label))
        for name in own:
            rate = row.contenders[name]["rate"]
            width = rate / max(1, most) * (WIDTH - LABEL - 120)
            marks.append(rectangle(LABEL, y, width, COLORS[name]))
            value = f"{rate:,.0f}"
            if name == "ours" and row.to("articles"):
                value += f"  ({row.to('articles')} articles)"
            marks.append(text(LABEL + width + 6, y + BAR - 3, value, size=11))
            y += BAR
        y += GAP
    body = "\n".join(marks)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y}"'
        f' viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" role="img">\n'
        f"<title>{escape(title)}</title>\n{body}\n</svg>\n"
    )


def legend(names: list[str]) -> list[str]:
    marks = []
    for place, name in enumerate(names):
        x = place * 185
        marks += [rectangle(x, 32, 12, COLORS[name]), text(x + 18, 43, TITLES[name])]
    return marks


def rectangle(x: float, y: float, width: float, color: str) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{max(1, width):.1f}"'
        f' height="{BAR - 2}" fill="{color}"/>'
    )


def text(x: float, y: float, words: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{TEXT}">'
        f"{escape(words)}</text>"
    )
