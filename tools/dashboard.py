"""Draws a Grafana dashboard: its panels and queries, on data of a Prometheus.

Without Grafana itself: a page of SVG, which Chromium makes a picture of.
"""

import html
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx

# Of a panel on the grid of Grafana, in pixels.
COLUMN, ROW = 64, 22
LEGEND, MARGIN = 5, 44
COLORS = ("#73bf69", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#fade2a", "#37872d")
STYLE = """
body {margin: 0; background: #111217; color: #ccccdc; font: 12px DejaVu Sans}
div {position: absolute; box-sizing: border-box; padding: 4px; overflow: hidden}
.panel {background: #181b1f; border: 1px solid #2c3235; border-radius: 3px}
h2, h3 {margin: 2px; font-size: 12px; font-weight: 600} h2 {font-size: 14px}
.row {padding: 0}
text {fill: #8e8e9b; font-size: 9px} .band {fill: #f2495c; opacity: 0.14}
line {stroke: #2c3235} polyline {fill: none; stroke-width: 1.3}
p {margin: 0 4px; font-size: 10px; white-space: nowrap}
"""
Points = list[tuple[float, float]]
Bands = dict[str, tuple[float, float]]


def shown(value: float, unit: str) -> str:
    if unit == "percentunit":
        return f"{value * 100:.0f} %"
    if unit == "s" and 0 < value < 1:
        return f"{value * 1000:.3g} ms"
    if unit == "Bps":
        return f"{value / 1000:.3g} kB/s"
    suffix = {"s": " s", "reqps": "/s", "cps": "/s", "ops": "/s"}
    return f"{value:.3g}{suffix.get(unit, '')}"


def measured(
    ask: httpx.Client, panel: dict[str, Any], span: tuple[float, float]
) -> dict[str, Points]:
    """The series of all targets of a panel, by legend."""
    found: dict[str, Points] = {}
    for target in panel["targets"]:
        query = target["expr"].replace("$__rate_interval", "10s")
        parameters = {"query": query, "start": span[0], "end": span[1], "step": "2"}
        answer = ask.get("/api/v1/query_range", params=parameters)
        assert answer.is_success, answer.text
        for series in answer.json()["data"]["result"]:
            labels = ", ".join(series["metric"].values())
            name = target["legendFormat"].replace("__auto", labels or "all")
            points = [(float(at), float(value)) for at, value in series["values"]]
            found[name] = [each for each in points if each[1] == each[1]]  # no NaN
    return found


def chart(
    series: dict[str, Points],
    unit: str,
    width: int,
    span: tuple[float, float],
    bands: Bands,
) -> str:
    height = 7 * ROW - 62
    values = [value for points in series.values() for _, value in points]
    top = max([*values, 0]) * 1.1 or 1

    def x(at: float) -> float:
        return MARGIN + (at - span[0]) / (span[1] - span[0]) * (width - MARGIN)

    def y(value: float) -> float:
        return height - value / top * (height - 8)

    parts = []
    for number, (began, end) in enumerate(bands.values(), 1):
        wide = max(x(end) - x(began), 3)
        size = f'width="{wide:.0f}" height="{height}"'
        parts.append(f'<rect class="band" x="{x(began):.0f}" {size}/>')
        parts.append(f'<text x="{x(began) + 1:.0f}" y="8">{number}</text>')
    for part in (0.0, 0.5, 1.0):
        value = top / 1.1 * part
        at = f'y1="{y(value):.0f}" y2="{y(value):.0f}"'
        parts.append(f'<line x1="{MARGIN}" x2="{width}" {at}/>')
        parts.append(f'<text x="0" y="{y(value) + 3:.0f}">{shown(value, unit)}</text>')
    for color, points in zip(COLORS * 9, series.values(), strict=False):
        line = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        parts.append(f'<polyline points="{line}" stroke="{color}"/>')
    svg = f'<svg width="{width}" height="{height + 6}">{"".join(parts)}</svg>'
    names = [
        f'<span style="color: {color}">&#9644;</span> {html.escape(name)} &nbsp;'
        for color, name in zip(COLORS * 9, series, strict=False)
    ]
    more = f"and {len(names) - LEGEND} more" if len(names) > LEGEND else ""
    return f"{svg}<p>{''.join(names[:LEGEND])}{more}</p>"


def page(dashboard: dict[str, Any], ask: httpx.Client, bands: Bands) -> tuple[str, int]:
    """HTML, and its height."""
    span = (
        min(a for a, _ in bands.values()) - 25,
        max(b for _, b in bands.values()) + 20,
    )
    boxes, bottom = [], 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        left, top = place["x"] * COLUMN + 4, place["y"] * ROW + 24
        style = f"left: {left}px; top: {top}px; width: {place['w'] * COLUMN - 6}px"
        style += f"; height: {place['h'] * ROW - 6}px"
        kind, inner = "row", f"<h2>{html.escape(panel['title'])}</h2>"
        if panel["type"] != "row":
            unit = panel["fieldConfig"]["defaults"]["unit"]
            width = place["w"] * COLUMN - 16
            drawn = chart(measured(ask, panel, span), unit, width, span, bands)
            kind, inner = "panel", f"<h3>{html.escape(panel['title'])}</h3>{drawn}"
        boxes.append(f'<div class="{kind}" style="{style}">{inner}</div>')
        bottom = max(bottom, top + place["h"] * ROW)
    faults = " &nbsp; ".join(f"{n}. {name}" for n, name in enumerate(bands, 1))
    title = f"<h2>{html.escape(dashboard['title'])} &nbsp; {faults}</h2>"
    body = f"<style>{STYLE}</style><body>{title}{''.join(boxes)}</body>"
    return f"<!doctype html><meta charset=utf-8>{body}", bottom


def draw(
    dashboard: dict[str, Any], ask: httpx.Client, bands: Bands, picture: Path
) -> None:
    """Write a PNG of what was measured during the bands."""
    text, height = page(dashboard, ask, bands)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dashboard.html"
        file.write_text(text)
        options = (
            *("--headless", "--no-sandbox", "--hide-scrollbars", "--disable-gpu"),
            f"--user-data-dir={folder}/profile",
            f"--window-size={24 * COLUMN + 4},{height}",
            f"--screenshot={picture.absolute()}",
        )
        subprocess.run(
            ["chromium", *options, file.as_uri()], check=True, capture_output=True
        )
    shrink(picture)


def shrink(picture: Path) -> None:
    """Each service has the picture: of so many colours it is a third as large."""
    program = "import sys; from PIL import Image; image = Image.open(sys.argv[1])"
    program += "; image.quantize(64).save(sys.argv[1], optimize=True)"
    command = ("uv", "run", "--no-project", "--quiet", "--with", "pillow", "python")
    subprocess.run([*command, "-c", program, picture], check=True)
