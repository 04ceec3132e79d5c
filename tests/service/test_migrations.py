"""Migrations of a service that starts many times at once, is killed, and is in use."""

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pymysql
import pytest
from pymysql.constants import CLIENT
from sqlalchemy import make_url

from tests.support.rendered_tests import IMPORTED
from tests.support.rendering import ROOT, Answers, git
from tests.support.servers import DRIVERS, DRIVERS_ON
from tests.support.service import Service

pytestmark = pytest.mark.boot

SLOW = {
    "postgresql": "SELECT pg_sleep(5)",
    "mysql": "SELECT SLEEP(5)",
    "sqlite": "WITH RECURSIVE counter(n) AS (SELECT 1 UNION ALL SELECT n + 1"
    " FROM counter WHERE n < 20000000) SELECT count(*) FROM counter",
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
        "revision": ["0", 0],  # nothing to write
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


def copied(service: Service, folder: Path) -> Service:
    """A copy of the service, on the same environment."""
    ignore = shutil.ignore_patterns(
        ".venv", ".*_cache", "__pycache__", "*.log", "tests-*"
    )
    shutil.copytree(service.folder, folder, ignore=ignore)
    (folder / ".venv").symlink_to(service.folder / ".venv")
    return Service(folder)


def with_revisions(service: Service, folder: Path, dialect: str) -> Service:
    """A copy of the service with more revisions, on the same environment."""
    shop = copied(service, folder)
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
    return shop


def test_locks_of_new_migrations_are_found(
    service: Callable[[str], Service], tmp_path: Path
) -> None:
    shop = copied(service("asyncpg"), tmp_path / "shop")

    def squawk() -> tuple[int, str]:
        # The environment is shared: it stays as it is.
        done = shop.command("make", "squawk", "BASE=HEAD", UV_NO_SYNC="1")
        return done.returncode, done.stdout + done.stderr

    for command in (["init"], ["add", "."], ["commit", "--message=base"]):
        git(shop.folder, *command)
    assert squawk()[0] == 0
    index = 'op.create_index("ix_orders_customer", "orders", ["customer"])'
    text = REVISION.format(number=2, before=1, upgrade=index, downgrade="pass")
    (shop.folder / "migrations" / "versions" / "0002.py").write_text(text)
    code, output = squawk()
    assert code != 0
    assert "require-concurrent-index-creation" in output
    # Of those that the base has already nothing is said.
    assert output.count("ix_orders_") == output.count("ix_orders_customer")


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


OWN_OPTIONS = """
SCHEMAS = ["others"]


def compare_type(inspected: Any, declared: Any) -> bool | None:
    return False if declared.name == "grams" else None


def compare_server_default(inspected: Any, declared: Any) -> bool | None:
    return False if declared.name == "grams" else None


def render_item(kind: str, item: Any, context: Any) -> Any:
    if kind == "type" and getattr(item, "length", None) == 77:
        context.imports.add("from sqlalchemy import String as Text77")
        return "Text77(77)"
    return False
"""
PARCEL = """

class Parcel(Base):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(77))
    grams: Mapped[int] = mapped_column({grams})
"""


def test_hooks_of_the_owner_decide(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    """What is rendered, compared, and in which schemas: each seen to be asked, since
    without the hooks the differences are found.
    """
    shop, variables = copied(service("asyncpg"), tmp_path / "shop"), database("asyncpg")
    models = shop.folder / "src" / "shop" / "models.py"
    options = shop.folder / "migrations" / "options.py"
    before, plain = models.read_text(), options.read_text()
    own = {"PYTHONPATH": str(shop.folder / "src"), **variables}

    def alembic(*arguments: str) -> str:
        done = shop.command("alembic", *arguments, **own)
        assert done.returncode == 0 or arguments == ("check",), done.stderr
        return done.stdout + done.stderr

    options.write_text(plain + OWN_OPTIONS)
    models.write_text(before + PARCEL.format(grams='Integer, server_default="1"'))
    alembic("upgrade", "head")
    alembic("revision", "--autogenerate", "--message=Parcels")
    (path,) = (shop.folder / "migrations" / "versions").glob("*_parcels.py")
    alembic("upgrade", "head")
    execute(variables, "CREATE SCHEMA others; CREATE TABLE others.any (id int)")
    models.write_text(before + PARCEL.format(grams='BigInteger, server_default="2"'))
    asked = alembic("check")
    options.write_text(plain)
    not_asked = alembic("check")

    assert "import String as Text77" in path.read_text()
    assert "Text77(77)" in path.read_text()
    assert "others.any" in asked
    assert "grams" not in asked
    assert "modify_type" in not_asked
    assert "modify_default" in not_asked
    assert "others" not in not_asked


def test_two_heads_are_one_sentence(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
) -> None:
    shop = copied(service("aiosqlite"), tmp_path / "shop")
    for number in (2, 3):
        path = shop.folder / "migrations" / "versions" / f"000{number}.py"
        text = REVISION.format(
            number=number, before=1, upgrade="pass", downgrade="pass"
        )
        path.write_text(text)
    done = shop.command("alembic", "upgrade", "head", **database("aiosqlite"))

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "0002 and 0003 are both the newest revision: join them by" in done.stderr


# What a program finds if nothing is left to write.
SETTLED = {
    "written": 1,
    "settled": "",
    "written again": 0,
    "back and forth": "",
    "with tables of others": "",
    "changed defaults": ["fixed", "function", "word", "yes", "zero"],
    "grown": 1,
    "settled again": "",
    "grown again": 0,
    "back and forth again": "",
    "shrunk": 1,
    "shrunk and settled": "",
    "shrunk and back": "",
}
# What `alembic check` finds of each UUID on MariaDB after printed SQL.
UNPRINTED = ["type change from CHAR(length=32) to Uuid()"]
# What comes first in a printed migration.
LIMITS = {
    "postgresql": "SET lock_timeout = '5s';\n\nSET statement_timeout = '1h';",
    "mysql": "SET innodb_lock_wait_timeout=5, lock_wait_timeout=5",
    "sqlite": "PRAGMA busy_timeout=60000;",
}


def with_zoo(service: Service, folder: Path) -> Service:
    """A copy of the service that has a model of each kind."""
    shop = copied(service, folder)
    package = folder / "src" / "shop"
    for path in (ROOT / "tests" / "programs" / "zoo").glob("*.py"):
        shutil.copy2(path, package)
    with (package / "models.py").open("a") as file:
        file.write("\nfrom . import zoo\n")
    options = folder / "migrations" / "options.py"
    lists = {"IGNORED_TABLES": ["celery_*", "zoo_audit.of_*"]}
    text = options.read_text()
    for name, value in lists.items():
        text = text.replace(f"{name}: list[str] = []", f"{name} = {value}")
    options.write_text(text)
    return shop


def execute(variables: dict[str, str], sql: str) -> None:
    """Run the statements of a printed migration as they are."""
    if "DATABASE_PATH" in variables:
        with sqlite3.connect(variables["DATABASE_PATH"]) as file:
            file.executescript(sql)
        return
    url = make_url(variables["DATABASE_URL"])
    if url.drivername == "mysql":
        mysql = pymysql.connect(
            host=url.host,
            port=url.port,
            user="root",
            database=url.database,
            client_flag=CLIENT.MULTI_STATEMENTS,
            autocommit=True,
        )
        with mysql, mysql.cursor() as cursor:
            cursor.execute(sql)
            while cursor.nextset():
                pass
        return

    async def run() -> None:
        connection = await asyncpg.connect(
            host=url.host, port=url.port, user=url.username, database=url.database
        )
        await connection.execute(sql)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def emptied(
    database: Callable[..., dict[str, str]], tmp_path: Path
) -> Callable[[str, str], dict[str, str]]:
    """The variables of an empty database, with none of what the zoo has beside it."""

    def emptied(driver: str, on: str) -> dict[str, str]:
        (tmp_path / "shop.sqlite3").unlink(missing_ok=True)
        variables = database(driver, on)
        if DRIVERS[driver]["dialect"] == "mysql":
            # A schema is a database, which all databases of the server share.
            drop = "DROP DATABASE IF EXISTS zoo_audit"
            execute(variables, f"SET foreign_key_checks=0; {drop}")
        return variables

    return emptied


@pytest.mark.parametrize("place", [*DRIVERS_ON, ("aiosqlite", "")], ids="-".join)
def test_migrations_of_each_kind_of_model_settle(
    service: Callable[[str], Service],
    emptied: Callable[[str, str], dict[str, str]],
    tmp_path: Path,
    place: tuple[str, str],
) -> None:
    """A second revision writes nothing, `alembic check` finds nothing, and a downgrade
    leads back: for what is new, for what has changed, and by printed SQL.
    """
    driver, on = place
    shop = with_zoo(service(driver), tmp_path / "shop")
    own = {"PYTHONPATH": str(shop.folder / "src"), "ZOO_SERVER": on}
    done = shop.program("zoo_migrations", **own, **emptied(driver, on))
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])

    assert report["found"] == SETTLED
    assert report["sql"].startswith(LIMITS[DRIVERS[driver]["dialect"]])
    for turn in ("*grows.py", "*shrinks.py"):
        for path in (shop.folder / "migrations" / "versions").glob(turn):
            path.unlink()
    empty = emptied(driver, on)
    execute(empty, report["sql"])
    checked = shop.command("alembic", "check", **own, **empty)
    emptied(driver, on)
    changes = re.findall(r"\('((?:add|remove|modify)_\w+)'", checked.stdout)
    found = re.findall(r"Detected (.*) on '[\w.]+'\"", checked.stderr)
    # MariaDB has a type for UUID, which SQL printed without a server cannot use.
    wanted = UNPRINTED * len(changes) if on == "mariadb" else []
    assert found == wanted, checked.stderr
    assert changes == ["modify_type"] * len(wanted), checked.stdout
    assert bool(checked.returncode) == bool(wanted), checked.stderr


def test_lines_of_a_migration_have_the_shape_of_the_log(
    rendered: Callable[[Answers], Service], database: Callable[[str], dict[str, str]]
) -> None:
    """Also those of Alembic."""
    shop = rendered({"driver": "aiosqlite"})
    done = shop.command("make", "--silent", "migrate", **database("aiosqlite"))
    records = [json.loads(line) for line in done.stderr.splitlines()]

    assert any(each["logger"].startswith("alembic") for each in records)
    for each in records:
        assert {"time", "level", "logger", "message"} <= each.keys()


# Keys in a circle, a tree, a view, and a constraint without a name.
ORDINARY_MODELS = """
from sqlalchemy import CheckConstraint, Computed


class Role(Base):
    __tablename__ = "roles"
    __table_args__ = (CheckConstraint("name <> ''"), CheckConstraint("name <> 'root'"))

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    width: Mapped[int] = mapped_column(server_default="2")
    double: Mapped[int] = mapped_column(Computed("width * 2", persisted=True))


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    role_id: Mapped[int] = mapped_column(ForeignKey("roles.id"))
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"))


class Team(Base):
    __tablename__ = "teams"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))


class Place(Base):
    __tablename__ = "places"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("places.id"))


class RoleName(Base):
    __tablename__ = "role_names"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
"""
# Rows, reads, a change of a column, and no way back.
ORDINARY_MIGRATION = """
    op.execute("CREATE VIEW role_names AS SELECT id, name FROM roles")
    roles = sa.table("roles", sa.column("id"), sa.column("name"))
    op.bulk_insert(roles, [{"id": 1, "name": "admin"}, {"id": 2, "name": "user"}])
    for row in op.get_bind().execute(sa.select(roles)):
        op.execute(sa.update(roles).where(roles.c.id == row.id).values(name="x"))
    op.execute("INSERT INTO places (id) VALUES (1)")
    with op.batch_alter_table("places") as batch:
        batch.add_column(sa.Column("name", sa.String(20)))
"""
ORDINARY_TESTS = """
import pytest
from sqlalchemy import delete, func, select

from shop.models import Place, Role, RoleName, Team, User


@pytest.mark.parametrize("turn", range(2))
async def test_rows(turn, client, database):
    async with database.write() as session:
        assert [*await session.scalars(select(Role.double))] == [4, 4]
        assert await session.scalar(select(func.count()).select_from(RoleName)) == 2
        for empty in (User, Team):
            assert not await session.scalar(select(func.count()).select_from(empty))
        assert [*await session.scalars(select(Place.id))] == [1]
        await session.execute(delete(Role).where(Role.id == 2))
        session.add(user := User(id=1, role_id=1))
        session.add(Place(id=3, parent_id=1))
        await session.flush()
        session.add(Place(id=2, parent_id=3))
        session.add(Team(id=1, owner_id=1))
        await session.flush()
        user.team_id = 1


async def test_keys_are_checked_again(client, database):
    from sqlalchemy.exc import IntegrityError

    with pytest.raises(IntegrityError):
        async with database.write() as session:
            session.add(User(id=1, role_id=5))
"""


@pytest.mark.parametrize("driver", ["asyncpg", "asyncmy", "aiosqlite"])
def test_tests_pass_with_ordinary_models_and_migrations(
    service: Callable[[str], Service],
    database: Callable[[str], dict[str, str]],
    tmp_path: Path,
    driver: str,
) -> None:
    shop, variables = copied(service(driver), tmp_path / "shop"), database(driver)
    versions = shop.folder / "migrations" / "versions"
    own = {"PYTHONPATH": str(shop.folder / "src"), **variables}
    with (shop.folder / "src" / "shop" / "models.py").open("a") as models:
        models.write(ORDINARY_MODELS)
    options = shop.folder / "migrations" / "options.py"
    ignored = "IGNORED_TABLES: list[str] = "
    text = options.read_text().replace(f"{ignored}[]", f'{ignored}["role_names"]')
    options.write_text(text)
    for arguments in (
        ("upgrade", "head"),
        ("revision", "--autogenerate", "--rev-id=0002", "--message=Models"),
    ):
        done = shop.command("alembic", *arguments, **own)
        assert done.returncode == 0, done.stderr
        assert "SAWarning" not in done.stderr
    (written,) = versions.glob("*_models.py")
    # A hash that is the same in each process.
    assert len({*re.findall(r"ck_roles_[0-9a-f]{8}\b", written.read_text())}) == 2
    with (shop.folder / "src" / "shop" / "models.py").open("a") as models:
        models.write("\n\nPlace.name = mapped_column(String(20))\n")
    (versions / "0003.py").write_text(
        REVISION.format(
            number=3,
            before=2,
            upgrade=ORDINARY_MIGRATION.strip(),
            downgrade="raise NotImplementedError",
        )
    )
    (shop.folder / "tests" / "test_rows.py").write_text(ORDINARY_TESTS)
    tests = ("tests/test_rows.py", "tests/test_migrations.py")
    done = shop.python("-m", "pytest", "-q", IMPORTED, *tests, **own)

    assert done.returncode == 0, done.stdout
