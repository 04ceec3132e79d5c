"""All renderings: layers, imports, sizes, and the words that a reader searches for."""

import ast
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.rendering.conftest import Content
from tests.support.rendering import Answers

# From the lowest layer up: a module imports what is below its part, or in its part.
LAYERS: tuple[set[str], ...] = (
    {"db/budget", "db/json_text", "db/orm/patterns"},
    {"db/config"},
    {"db/engine"},
    {"db/base", "db/errors", "db/orm/guard"},
    {"db/routing"},
    {"db/primary"},
    {"db/orm"},
    {"db/database"},
    {"db/bulk", "db/doctor", "db/open"},
    {"db/pooler", "db/replicas"},
    {"db/tracing"},
    {"db/features"},
    {"db/__init__", "db/doctor/startup_check", "db/migrations", "db/session"},
    {"web", "worker"},
    {"tracing"},
    {"features"},
    {"settings", "db/settings"},
    {"models"},
    {"orders", "payments", "tasks"},
    {"api"},
    {"__init__", "main"},
    {"__main__", "db/doctor/__main__", "worker/__main__"},
)
YOURS = {"api", "models", "orders", "payments", "settings", "tasks"}
# All that yours may import of the template's.
FACE = {"db/__init__", "features", "worker/app"}
# Modules on the longest chain of imports, main.py included.
LONGEST_CHAIN = 10
MOST_FILES = 12
# Lines without blanks, comments and docstrings: of all modules, and of one.
SMALLEST, LARGEST, LONGEST = 3910, 6820, 150

Chosen = Callable[[Answers], object]


def has_server(row: Answers) -> bool:
    return bool(row["driver"] != "aiosqlite")


def has_replicas(row: Answers) -> bool:
    return bool(row.get("with_replicas"))


def has_log(row: Answers) -> bool:
    """A replica replays the log of the primary: that of Aurora has none."""
    return has_replicas(row) and "aurora" not in row["cloud"]


def is_postgresql(row: Answers) -> bool:
    return row["driver"] in ("asyncpg", "psycopg")


# What is searched for at night, and the renderings in which there is something to find.
SEARCHED: dict[str, Chosen] = {
    "watchdog": has_server,
    "credential": has_server,
    "failover": has_replicas,
    "promot": has_replicas,
    "lag": has_replicas,
    "round.robin": has_replicas,
    "lsn": lambda row: has_log(row) and is_postgresql(row),
    "gtid": lambda row: has_log(row) and not is_postgresql(row),
    "health": lambda _: True,
    "probe": lambda _: True,
    "reject": lambda row: row["runtime"] != "lambda",
}
# Words of our own for what has a name in the field.
PRIVATE = {
    *("look", "looks", "looked", "lend", "loan", "loans", "doubt", "leave", "tell"),
    *("told", "whoever", "goodbye", "figures", "seen", "trouble"),
}
MOST_PRIVATE = 10


# Each module with what it imports, also inside of functions.
Graph = dict[str, set[str]]


def name_of(content: Content) -> str:
    return content.module.removesuffix(".py")


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def relative_imports(text: str) -> set[tuple[int, str, str]]:
    nodes = [n for n in ast.walk(parsed(text)) if isinstance(n, ast.ImportFrom)]
    return {(n.level, n.module or "", a.name) for n in nodes for a in n.names}


def imported(content: Content, known: set[str]) -> set[str]:
    """`from a.b import c` is the module a/b/c if there is one, and a/b otherwise."""
    above = Path(content.module).parent.parts
    found = set()
    for level, module, name in relative_imports(content.text):
        if not level:
            continue
        parts = [*above[: len(above) - level + 1], *module.split(".")]
        path = "/".join(filter(None, parts))
        for candidate in (f"{path}/{name}", path, f"{path}/__init__"):
            if (other := candidate.lstrip("/")) in known:
                found.add(other)
                break
        else:
            raise AssertionError(f"{content.file} imports {path}/{name}")
    return found


@pytest.fixture(scope="session")
def graphs(modules: dict[Path, list[Content]]) -> dict[Path, Graph]:
    return {project: graph_of(contents) for project, contents in modules.items()}


def graph_of(contents: list[Content]) -> Graph:
    known = {name_of(content) for content in contents}
    return {name_of(each): imported(each, known) for each in contents}


def part_of(module: str) -> str:
    """The part of the table that it belongs to: the longest one that begins it."""
    parts = {part for layer in LAYERS for part in layer}
    return max((part for part in parts if f"{module}/".startswith(f"{part}/")), key=len)


def level(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def test_imports_are_relative(contents: list[Content]) -> None:
    """So that all imports are in the graph, and a package can be renamed."""
    for content in filter(lambda content: content.is_source, contents):
        package = Path(content.path).parts[1]
        for node in ast.walk(parsed(content.text)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
                assert not any(name.split(".")[0] == package for name in names)
            if isinstance(node, ast.ImportFrom) and not node.level:
                assert (node.module or "").split(".")[0] != package, content.file


def test_imports_point_down(graphs: dict[Path, Graph]) -> None:
    for project, graph in graphs.items():
        for module, found in graph.items():
            part = part_of(module)
            for other in map(part_of, found):
                is_below = level(other) < level(part)
                assert is_below or other == part, f"{project}: {module} -> {other}"


def test_yours_imports_the_face_only(graphs: dict[Path, Graph]) -> None:
    for project, graph in graphs.items():
        for module in YOURS & graph.keys():
            assert graph[module] <= YOURS | FACE, f"{project}: {module}"


def test_nothing_is_imported_in_a_circle(graphs: dict[Path, Graph]) -> None:
    """CycleError names the modules: behind TYPE_CHECKING, or in a function as well."""
    for graph in graphs.values():
        assert [*TopologicalSorter(graph).static_order()]


def test_chains_of_imports_are_short(graphs: dict[Path, Graph]) -> None:
    longest: tuple[str, ...] = ()
    for graph in graphs.values():
        chains: dict[str, tuple[str, ...]] = {}
        for module in TopologicalSorter(graph).static_order():
            below = [chains[each] for each in graph[module]]
            chains[module] = (module, *max(below, key=len, default=()))
        longest = max(longest, chains["main"], key=len)

    assert len(longest) <= LONGEST_CHAIN, longest


def test_folders_stay_small(modules: dict[Path, list[Content]]) -> None:
    for project, contents in modules.items():
        paths = [Path(content.module) for content in contents]
        folders = Counter(path.parent for path in paths if path.stem != "__init__")
        assert max(folders.values()) <= MOST_FILES, f"{project}: {folders}"


def test_code_stays_small(modules: dict[Path, list[Content]]) -> None:
    sizes = {
        project: sum(code_lines(content.text) for content in contents)
        for project, contents in modules.items()
    }
    assert min(sizes.values()) <= SMALLEST
    assert max(sizes.values()) <= LARGEST, max(sizes, key=sizes.__getitem__)


def test_modules_stay_small(contents: list[Content]) -> None:
    for content in contents:
        if content.is_source:
            assert code_lines(content.text) <= LONGEST, content.file


@cache
def code_lines(text: str) -> int:
    """Lines without blanks, comments and docstrings."""
    skipped: set[int] = set()
    for node in ast.walk(parsed(text)):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.strip().startswith("#") and number not in skipped
    )


@pytest.mark.parametrize("word", SEARCHED)
def test_subject_is_found_by_its_name(
    renderings: dict[Path, Answers], modules: dict[Path, list[Content]], word: str
) -> None:
    pattern = re.compile(rf"(\b|_){word}", re.IGNORECASE)
    chosen = {project for project, row in renderings.items() if SEARCHED[word](row)}

    assert chosen
    for project in chosen:
        texts = (f"{each.module}\n{each.text}" for each in modules[project])
        assert any(map(pattern.search, texts)), project


def test_names_are_those_of_the_field(modules: dict[Path, list[Content]]) -> None:
    for project, contents in modules.items():
        private: Counter[str] = Counter()
        for content in contents:
            private.update(private_words(content.text))
        assert private.total() <= MOST_PRIVATE, f"{project}: {private}"


@cache
def private_words(text: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for node in ast.walk(parsed(text)):
        for field in ("name", "id", "attr", "arg"):
            if isinstance(value := getattr(node, field, None), str):
                words = re.split(r"_+|(?<=[a-z])(?=[A-Z])", value)
                found.update(word for word in words if word.lower() in PRIVATE)
    return found
