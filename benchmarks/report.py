"""What was measured: rows, their targets, and the one table of them."""

from dataclasses import dataclass, field

from benchmarks.serving import CONTENDERS, Numbers


@dataclass(frozen=True)
class Target:
    limit: float
    is_maximum: bool = False

    def is_reached(self, value: float) -> bool:
        return value <= self.limit if self.is_maximum else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.is_maximum else 'at least'} {self.limit:g}"


def at_least(limit: float) -> Target:
    return Target(limit)


def at_most(limit: float) -> Target:
    return Target(limit, is_maximum=True)


@dataclass(frozen=True)
class Row:
    """A workload in a setting. `value` is what the target is about, in `unit`."""

    part: str
    setting: str
    workload: str
    value: float
    unit: str
    target: Target | None = None
    contenders: dict[str, Numbers] = field(default_factory=dict)

    def to(self, contender: str) -> str:
        """How many times as many requests a second as another contender."""
        rates = {name: each.get("rate", 0) for name, each in self.contenders.items()}
        return (
            f"{rates['ours'] / rates[contender]:.2f}x" if rates.get(contender) else ""
        )

    def cpu_to(self, contender: str) -> str:
        """How many times as much CPU another contender takes for a request."""
        if {"ours", contender} - self.contenders.keys():
            return ""
        ours, other = (self.contenders[each].get("cpu") for each in ("ours", contender))
        return f"{other / ours:.2f}x" if ours and other else ""

    def cells(self) -> tuple[str, ...]:
        ours = self.contenders.get("ours", {})
        numbers = [
            f"{ours[name] * factor:.{digits}f}" if name in ours else ""
            for name, factor, digits in (
                *(("rate", 1, 0), ("refused", 1, 0), ("cpu", 1e6, 0)),
                *(("p50", 1e3, 1), ("p99", 1e3, 1)),
            )
        ]
        if numbers[1] == "0":
            numbers[1] = ""
        result = ""
        if self.target:
            is_reached = self.target.is_reached(round(self.value, 2))
            result = "reached" if is_reached else "not reached"
        return (
            *(self.setting, self.workload, *numbers),
            *(self.to(rival) for rival in CONTENDERS[1:]),
            self.cpu_to("articles"),
            *(f"{self.value:.4g} {self.unit}", str(self.target or ""), result),
        )


HEAD = (
    *("setting", "workload", "req/s", "503/s", "CPU us", "p50 ms", "p99 ms"),
    *("to articles", "to FastAPI + Core", "to bare driver", "CPU of articles"),
    *("value", "target", "result"),
)


def ratio(
    part: str,
    setting: str,
    workload: str,
    found: dict[str, Numbers],
    least: float | None = None,
) -> Row:
    """Requests a second, against the articles' wiring."""
    value = found["ours"]["rate"] / (found["articles"]["rate"] or 1)
    target = at_least(least) if least else None
    return Row(part, setting, workload, value, "x articles", target, found)


def as_markdown(rows: list[Row]) -> str:
    """A table, whose columns are aligned so that a terminal shows it as well."""
    table = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {0, 1, len(HEAD) - 1, len(HEAD) - 2}

    def line(cells: tuple[str, ...]) -> str:
        padded = [
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = [
        "-" * width if place in left else "-" * (width - 1) + ":"
        for place, width in enumerate(widths)
    ]
    return "\n".join([line(HEAD), f"| {' | '.join(rule)} |", *map(line, table[1:])])
