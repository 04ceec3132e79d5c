"""What is measured of an export: its rate, and that its memory is bounded."""

from dataclasses import replace
from time import perf_counter

from benchmarks.parts import Effort
from benchmarks.projects import Project, Workshop
from benchmarks.report import Row, at_most
from benchmarks.serving import Numbers, serving

EXPORTED, EXPORT_MB, SECONDS = 1_000_000, 30, 10
CONTENDERS = {
    "asyncpg": ("ours", "articles", "bare"),
    "aiomysql": ("ours", "articles"),
}
INSERT = "INSERT INTO orders (id, customer, status, created_at, updated_at) "
ROWS = {
    "asyncpg": """
        SELECT gen_random_uuid(), 'somebody', 'new', now() + n * interval '1 ms', now()
        FROM generate_series(1, {}) n
    """,
    "aiomysql": """
        SELECT uuid(), 'somebody', 'new', now(6) + INTERVAL seq MICROSECOND, now(6)
        FROM seq_1_to_{}
    """,
}


def export(shop: Workshop, effort: Effort) -> list[Row]:
    """A million rows as CSV: rows a second, and the memory that is added meanwhile."""
    number = EXPORTED // (100 if effort.is_quick else 1)
    rows = []
    for driver, names in CONTENDERS.items():
        project = shop.project(driver)
        server = shop.server(project.dialect)
        server.empty("export")
        own = replace(server, url=server.url.rpartition("/")[0] + "/export")
        project.run("alembic", "upgrade", "head", DATABASE_URL=own.url)
        own.execute(INSERT + ROWS[driver].format(number))
        found = {name: export_by(project, name, own.url) for name in names}
        ratio = found["ours"]["rate"] / found["articles"]["rate"]
        row = ("export", driver, f"export {number:,} rows", ratio, "x articles")
        rows.append(Row(*row, contenders=found))
        row = ("export", driver, "memory of the export", found["ours"]["added"], "MB")
        rows.append(Row(*row, at_most(EXPORT_MB)))
    return rows


def export_by(project: Project, name: str, url: str) -> Numbers:
    """Ours to the end; of the others a part, at the same pace."""
    seconds = 30 * SECONDS if name == "ours" else SECONDS
    with serving(project, f"{name}:app", DATABASE_URL=url) as running:
        before, began = running.memory("VmRSS"), perf_counter()
        running.reset_peak()
        number = running.lines("/orders/export", seconds)
        rate = number / (perf_counter() - began)
        return {"rate": rate, "added": running.memory("VmHWM") - before}
