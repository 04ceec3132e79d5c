"""Replicas are an add-on: with the answer files are added, and few are changed."""

from pathlib import Path

import pytest

from tests.support.rendering import Answers, fast, files, render

# Below src/shop: what is generated from the answers.
CHANGED = {"db/budget.py", "db/features.py", "features.py"}
ADDED = ("src/shop/db/replicas/", "src/shop/web/read_your_writes.py")
AWS = {"cloud": "aws_rds", "pooler": "rds_proxy"}
ROWS: tuple[Answers, ...] = (
    *({"driver": each} for each in ("asyncpg", "psycopg", "aiomysql", "asyncmy")),
    *({"driver": each, "with_celery": True} for each in ("asyncpg", "aiomysql")),
    {"driver": "psycopg", "pooler": "transaction"},
    {"driver": "asyncpg", "pooler": "session"},
    {"driver": "asyncmy", **AWS},
    {"driver": "asyncpg", "pooler": "transaction", "with_celery": True},
    {"driver": "aiomysql", **AWS, "with_celery": True},
    {"driver": "asyncpg", "cloud": "aws_aurora", "runtime": "kubernetes"},
)


@pytest.mark.parametrize("answers", ROWS, ids=str)
def test_replicas_are_added_and_change_only_what_is_generated(
    template: Path, tmp_path: Path, answers: Answers
) -> None:
    with fast(template, tmp_path / "source") as source:
        before, after = (
            python_files(render(source, tmp_path / name / "shop", answers | more))
            for name, more in (("before", {}), ("after", {"with_replicas": True}))
        )

    assert before.keys() <= after.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert changed <= {f"src/shop/{path}" for path in CHANGED}
    added = after.keys() - before.keys()
    assert {path for path in added if not path.startswith(ADDED)} == set()
    for expected in ADDED:
        assert any(path.startswith(expected) for path in added), expected


def python_files(project: Path) -> dict[str, bytes]:
    found = files(project)
    return {path: text for path, text in found.items() if path.endswith(".py")}
