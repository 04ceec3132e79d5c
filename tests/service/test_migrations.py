"""Migrations of a service that starts many times at once, is killed, and is in use."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import DRIVERS
from tests.support.service import Service

pytestmark = pytest.mark.boot

SLOW = {
    "postgresql": "SELECT pg_sleep(2)",
    "mysql": "SELECT SLEEP(2)",
    "sqlite": "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1"
    " FROM counter WHERE n < 5000000) SELECT count(*) FROM counter",
}
# A statement that must run outside of a transaction.
ALONE = {
    "postgresql": "CREATE INDEX CONCURRENTLY ix_parcels_note ON parcels (note)",
    "mysql": "CREATE INDEX ix_parcels_note ON parcels (note)",
    "sqlite": "VACUUM",
}
# The last line of the output when a lock timeout ends a migration.
LOCKED = {
    "postgresql": "canceling statement due to lock timeout",
    "mysql": "(1205, 'Lock wait timeout exceeded; try restarting transaction')",
}
HEAD, BEFORE = ["0005"], ["0004"]
EXPECTED = {
    # Each revision by one process; the slow revision again, by the next process.
    "at_once": {
        "ends": ["0"],
        "killed": "-9",
        "applied": [1, 1, 2, 1, 1],
        "waited": True,
        "versions": HEAD,
    },
    "once_more": ["0", False, True],
    "nothing_to_do_while_locked": ["0", "0", "0", 0],
    "something_to_do_while_locked": ["0", BEFORE, "0", HEAD],
    "schema_ahead": ["0", True, ["9999"]],
    "schema_ahead_after_the_wait": ["0", True, ["9999"]],
    "commands": {
        "downgrade -1": ["0", BEFORE],
        "upgrade +1": ["0", HEAD],
        "stamp 0004": ["0", BEFORE],
        "stamp head": ["0", HEAD],
        "--sql": ["0", True],
        "revision": ["0", 1],
    },
}

REVISION = '''"""Revision {number}."""

import sqlalchemy as sa
from alembic import op

revision = "000{number}"
down_revision = "000{before}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''
CREATE = """op.create_table(
        "parcels",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("note", sa.String(50)),
    )"""
DROP = 'op.drop_table("parcels")'
ADD = 'op.add_column("parcels", sa.Column("weight", sa.Integer()))'
INSERT = 'op.execute("INSERT INTO parcels (id) VALUES (1)")'


def revisions(dialect: str) -> dict[int, tuple[list[str], str]]:
    """Upgrade and downgrade of each; 0003 would fail if it ran twice."""
    # ALTER TABLE ends a transaction of MySQL: such a migration is not atomic.
    change = [] if dialect == "mysql" else [ADD]
    slow = ['print("slow", flush=True)', f"op.execute({SLOW[dialect]!r})"]
    alone = [
        "with op.get_context().autocommit_block():",
        f"    op.execute({ALONE[dialect]!r})",
    ]
    return {
        2: ([CREATE], DROP),
        3: ([*change, INSERT, *slow], "pass"),
        4: (alone, "pass"),
        5: ([DROP], CREATE),
    }


def with_revisions(service: Service, folder: Path, dialect: str) -> Service:
    """A copy of the service with more revisions, on the same environment."""
    ignore = shutil.ignore_patterns(".venv", ".*_cache", "*.log")
    shutil.copytree(service.folder, folder, ignore=ignore)
    (folder / ".venv").symlink_to(service.folder / ".venv")
    for number, (upgrade, downgrade) in revisions(dialect).items():
        path = folder / "migrations" / "versions" / f"000{number}.py"
        path.write_text(
            REVISION.format(
                number=number,
                before=number - 1,
                upgrade="\n    ".join(upgrade),
                downgrade=downgrade,
            )
        )
    return Service(folder)


def in_use(dialect: str) -> dict[str, list[Any]]:
    if dialect == "sqlite":
        return {"writer_at_work": ["0", True, "0", HEAD]}
    sentence = f"Migration stopped at DROP TABLE parcels: {LOCKED[dialect]}"
    return {"table_in_use": [sentence, True, "0"]}


@pytest.mark.parametrize("driver", DRIVERS)
def test_migrations_at_once_killed_and_in_use(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    driver: str,
) -> None:
    dialect = DRIVERS[driver]["dialect"]
    shop = with_revisions(service(driver), tmp_path / "shop", dialect)
    done = shop.program("concurrent_migrations", **database(driver))

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report["seconds"])
    assert report["found"] == EXPECTED | in_use(dialect)
