"""`copier update` brings the template's changes and leaves the user's alone."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import copier
import pexpect
import pytest
import yaml

from tests.support.rendered_tests import all_tests
from tests.support.rendering import (
    NEXT,
    ROOT,
    Answers,
    files,
    git,
    load_answers,
    release,
    releases,
    render,
    snapshot,
)
from tests.support.service import ORDER, Service

DRIVERS = ("asyncpg", "aiosqlite")
AFTER_NEXT = "9999.0.1"
FIRST = "1.0.0rc1"
SEAM = "# This service:"
OURS = "# A line of ours."
SAY = 'Say what changes: make revision MESSAGE="..."'
THINGS = '''"""Things: what this service is really about."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from sqlalchemy import select

from .db import Read
from .models import Thing

router = APIRouter(prefix="/things")


def suffix(request: Request) -> str:
    return str(request.state.suffix)


@router.get("")
async def names(
    session: Read, suffix: Annotated[str, Depends(suffix)]
) -> list[str]:
    return [name + suffix for name in await session.scalars(select(Thing.name))]
'''
MODELS = '''"""Your tables. Alembic compares the database with what is declared here."""

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from .db import Base


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
'''
MIGRATION = '''"""Things instead of orders."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_table("order_lines")
    op.drop_table("orders")
    op.create_table(
        "things",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(50), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_things")),
    )


def downgrade() -> None:
    op.drop_table("things")
    op.create_table("orders", sa.Column("id", sa.Uuid(), primary_key=True))
    op.create_table("order_lines", sa.Column("order_id", sa.Uuid(), primary_key=True))
'''
TEST = '''"""The route, the resource and the middleware of this service."""

from httpx import AsyncClient


async def test_things(client: AsyncClient) -> None:
    answer = await client.get("/things")

    assert answer.json() == []
    assert answer.headers["x-team"] == "things"
'''
MIDDLEWARE = '''

class Team:
    """Says in a header of every answer whose service this is."""

    def __init__(self, app: ASGIApp, name: str) -> None:
        self.app = app
        self.name = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-team", self.name.encode()))
            await send(message)

        await self.app(scope, receive, named)


MIDDLEWARE = [Middleware(Team, name="things")]
'''
TASK = """

@task()
async def count_things(database: Database) -> None: ...
"""
EXAMPLE = re.compile(r"(test_)?(orders|payments|sweep)\.py")
# Below the comment that marks the place, as the README says.
SEAMS = {
    ".dockerignore": "!data",
    ".env.example": "# SUFFIX=!",
    ".github/workflows/ci.yml": "  # A job of ours would stand here.",
    ".gitignore": "*.csv",
    "Makefile": "things: ## Count them\n\twc -l src/*/things.py",
    "README.md": "Ask the team of things.",
    "compose.yaml": "  cache:\n    image: redis:7",
    "pyproject.toml": '  "itsdangerous>=2.2",',
}


def work_on(project: Path) -> None:
    """The first weeks of a service: all of it new, and the example deleted."""
    (package,) = (project / "src").iterdir()
    delete_example(project)
    (package / "models.py").write_text(MODELS)
    (package / "things.py").write_text(THINGS)
    (project / "migrations" / "versions" / "0002_things.py").write_text(MIGRATION)
    replace(
        project / "migrations" / "options.py",
        ("IGNORED_TABLES: list[str] = []", 'IGNORED_TABLES: list[str] = ["spatial_*"]'),
    )
    (project / "tests" / "test_things.py").write_text(TEST)
    # Binary: no update can merge it.
    (project / "docs" / "dashboard.png").write_bytes(b"ours \0")
    replace(
        package / "api.py",
        ("from . import orders, payments\n", "from . import things\n"),
        ("router.include_router(orders.router)\n", ""),
        (
            "router.include_router(payments.router)",
            "router.include_router(things.router)",
        ),
        (
            "from starlette.middleware import Middleware\n",
            "from starlette.middleware import Middleware\n"
            "from starlette.types import ASGIApp, Message, Receive, Scope, Send\n",
        ),
        ("MIDDLEWARE: list[Middleware] = []\n", MIDDLEWARE.lstrip("\n")),
        ("    yield {}\n", '    yield {"suffix": settings.suffix}\n'),
    )
    replace(package / "settings.py", ("    pass\n", '    suffix: str = "!"\n'))
    if (tasks := package / "tasks.py").exists():
        tasks.write_text(tasks.read_text() + TASK)
    for path, line in SEAMS.items():
        below_the_seam(project / path, line)


def delete_example(project: Path) -> None:
    for path in (*project.glob("src/*/*.py"), *project.glob("tests/*.py")):
        if EXAMPLE.fullmatch(path.name):
            path.unlink()


def replace(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"{path}: {old}"
        text = text.replace(old, new)
    path.write_text(text)


def below_the_seam(path: Path, line: str) -> None:
    """Insert after the first seam of the file, in the README at its end."""
    text = path.read_text()
    if path.suffix == ".md":
        path.write_text(f"{text}{line}\n")
        return
    assert SEAM in text, f"{path} has no place for the user's lines"
    head, tail = text.split(SEAM, 1)
    rest, newline, tail = tail.partition("\n")
    path.write_text(f"{head}{SEAM}{rest}{newline}{line}\n{tail}")


def commit(project: Path, message: str) -> None:
    if not (project / ".git").exists():
        git(project, "init", "--quiet")
    git(project, "add", "--all")
    git(project, "commit", "--quiet", "--message", message)


def update(project: Path, answers: Answers | None = None) -> None:
    copier.run_update(
        project,
        data=answers or {},
        defaults=True,
        overwrite=True,
        unsafe=False,
        quiet=True,
    )


def assert_merged(project: Path) -> None:
    status = git(project, "status", "--porcelain")
    assert not re.search(r"^(UU|AA|DU|UD) ", status, re.MULTILINE), status
    assert not list(project.rglob("*.rej"))
    for path, content in files(project).items():
        assert b"<<<<<<<" not in content, path


def change_everything(template: Path) -> None:
    """Change the head and the tail of every source."""
    for path in sorted((template / "template").rglob("*")):
        kept = "answers_file" in path.name or path.name == "py.typed"
        if path.suffix == ".png":
            path.write_bytes(path.read_bytes() + b"more")
        elif path.is_file() and not kept and not path.read_text().startswith("{% inc"):
            grow(path)
    for path in sorted((template / "variants").rglob("*")):
        if path.suffix in (".py", ".sql", ".yaml") or path.name == "CODEOWNERS":
            grow(path)


def grow(path: Path) -> None:
    """Add a line at the top, and one at the end or before what ends in a seam."""
    text = path.read_text()
    comment = "##" if path.suffix == ".mako" else "#"
    seam = text.rfind("## This service" if path.stem == "README.md" else SEAM)
    last = seam > 0 and text[seam:].count("\n") <= 3
    end = text.rfind("\n", 0, seam) + 1 if last else len(text)
    path.write_text(
        f"{comment} A new head.\n{text[:end]}{comment} A new tail.\n{text[end:]}"
    )


@pytest.fixture(scope="session")
def next_template(tmp_path_factory: pytest.TempPathFactory, template: Path) -> Path:
    """A later release in which every file of the template's has changed."""
    clone = tmp_path_factory.mktemp("next") / "clone"
    shutil.copytree(template, clone)
    change_everything(clone)
    return release(clone, AFTER_NEXT)


def test_every_file_really_changes(next_template: Path, tmp_path: Path) -> None:
    for driver in DRIVERS:
        new = files(
            render(next_template, tmp_path / driver / "new", {"driver": driver})
        )
        copier.run_copy(
            str(next_template),
            tmp_path / driver / "old",
            data={"driver": driver, "project_name": "new"},
            vcs_ref=NEXT,
            defaults=True,
            quiet=True,
        )
        old = files(tmp_path / driver / "old")

        same = {path for path in old if old[path] == new[path]}
        assert same == {next(p for p in old if p.endswith("py.typed"))}


def project_on(
    template: Path, folder: Path, driver: str, version: str, **answers: Any
) -> Path:
    copier.run_copy(
        str(template),
        folder,
        data={"driver": driver, **answers},
        vcs_ref=version,
        defaults=True,
        quiet=True,
    )
    commit(folder, "From the template")
    return folder


@pytest.mark.parametrize(
    "answers",
    [{"driver": driver} for driver in DRIVERS]
    + [{"driver": "asyncpg", "with_celery": True}],
    ids=str,
)
def test_update_leaves_exactly_what_the_user_has_done(
    next_template: Path, tmp_path: Path, answers: Answers
) -> None:
    old = tmp_path / "old" / "shop"
    project = project_on(next_template, old, version=NEXT, **answers)
    original = files(project)
    work_on(project)
    commit(project, "Our work")
    worked = files(project)

    update(project)

    assert_merged(project)
    updated = files(project)
    assert updated["docs/dashboard.png"] == worked["docs/dashboard.png"]
    fresh = files(render(next_template, tmp_path / "fresh" / "shop", answers))
    users = [p for p in original if is_users(p)]
    expected = dict(fresh)
    for path in {*users, *worked} - {p for p in original if not is_users(p)}:
        expected.pop(path, None)
        if path in worked:
            expected[path] = worked[path]
    for path, line in SEAMS.items():
        updated[path] = without(updated[path], line, path)
    assert updated == expected


# What is new and the owner's: it arrives once.
NEW = ("docs/dashboard.png", "migrations/options.py")


def is_users(path: str) -> bool:
    """Whether copier.yml leaves the file to the user."""
    text = (ROOT / "copier.yml").read_text()
    _, once = text.split('"update" %}\n', 1)
    _, when_asked_for = text.split("_skip_if_exists:\n", 1)
    patterns = once.partition("{% endif")[0].split()
    patterns += re.findall(r"'(/\S+)'", when_asked_for.partition("\n\n")[0])
    return any(PurePosixPath("/", path).match(pattern) for pattern in patterns)


@pytest.mark.parametrize("name", ["smallest", "largest"])
def test_readme_names_what_is_the_users(name: str) -> None:
    text = (ROOT / "tests" / "golden" / name / "README.md").read_text()
    yours = "".join(re.findall(r"^\| (.*) \| yours \|$", text, re.MULTILINE))

    for path in filter(is_users, files(ROOT / "tests" / "golden" / name)):
        parts = PurePosixPath(path).parts
        assert parts[-1] in yours or "/".join(parts[:2]) in yours, path


def without(content: bytes, line: str, path: str) -> bytes:
    text = content.decode()
    assert text.count(f"{line}\n") == 1, path
    return text.replace(f"{line}\n", "").encode()


def test_second_update_does_nothing(next_template: Path, tmp_path: Path) -> None:
    project = project_on(next_template, tmp_path / "shop", "asyncpg", NEXT)
    update(project)
    commit(project, "Updated")
    update(project)

    assert git(project, "status", "--porcelain") == ""


@pytest.mark.parametrize(
    "answers",
    [
        {"max_connections": 500, "workers_per_instance": 4},
        {"runtime": "cloud_run", "pooler": "transaction"},
        {"with_replicas": True},
        {"cloud": "aws_rds", "runtime": "lambda", "auth": "token", "max_instances": 2},
    ],
    ids=str,
)
def test_other_answers_give_what_a_fresh_copy_gives(
    template: Path, tmp_path: Path, answers: Answers
) -> None:
    project = project_on(template, tmp_path / "old" / "shop", "asyncpg", NEXT)
    before = files(project)
    recorded = load_answers(project)
    defaults = {name: recorded[name] for name in answers if name in recorded}
    update(project, answers)

    assert_merged(project)
    assert files(project) == files(
        render(template, tmp_path / "fresh" / "shop", answers)
    )
    commit(project, "Other answers")
    update(project, defaults)

    assert_merged(project)
    assert files(project) == before


def test_tasks_come_and_go(template: Path, tmp_path: Path) -> None:
    """The example stays what it was: it pays at once."""
    project = project_on(template, tmp_path / "old" / "shop", "asyncpg", NEXT)
    before = files(project)
    answers = {"with_celery": True}
    update(project, answers)

    assert_merged(project)
    after, fresh = (
        {
            path: content
            for path, content in files(folder).items()
            if not is_users(path) or path.endswith("tasks.py")
        }
        for folder in (project, render(template, tmp_path / "new" / "shop", answers))
    )
    assert after == fresh
    commit(project, "Tasks")
    update(project, {"with_celery": False})

    assert_merged(project)
    assert files(project) == before


@pytest.mark.parametrize("driver", DRIVERS)
def test_every_release_can_be_updated(
    template: Path, tmp_path: Path, driver: str
) -> None:
    recorded = releases()
    assert recorded, "tests/update/releases.txt names no release"
    for version, _ in recorded:
        project = project_on(template, tmp_path / version / "shop", driver, version)
        original = files(project)
        update(project)

        assert_merged(project)
        fresh = render(
            template, tmp_path / f"{version}-fresh" / "shop", {"driver": driver}
        )
        updated, expected = files(project), files(fresh)
        for path in filter(is_users, {*updated, *expected}):
            first = expected.pop(path, None)
            if path in original:
                expected[path] = original[path]
            elif path in NEW and first:
                expected[path] = first
        assert updated == expected


VERSIONS = [version for version, _ in releases()]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("version", VERSIONS)
def test_lines_below_a_seam_stay_when_a_release_is_updated(
    template: Path, tmp_path: Path, version: str, driver: str
) -> None:
    project = project_on(template, tmp_path / "old" / "shop", driver, version)
    original = files(project)
    seams = {
        path
        for path, content in original.items()
        if SEAM.encode() in content and path != "README.md"
    }
    assert {".gitignore", "Makefile", "compose.yaml", "pyproject.toml"} <= seams
    for path in seams:
        below_each_seam(project / path)
    if version != FIRST:  # its sentence at the end was another: CHANGELOG.md says so
        below_the_seam(project / "README.md", OURS)
        seams.add("README.md")
    commit(project, "Our work")
    update(project)

    assert_merged(project)
    updated = files(project)
    fresh = files(render(template, tmp_path / "fresh" / "shop", {"driver": driver}))
    for path in seams:
        lines = updated[path].decode().splitlines(keepends=True)
        own = [line for line in lines if line.strip() == OURS]
        assert own, path
        assert "".join(line for line in lines if line not in own) == (
            fresh[path].decode()
        )


def below_each_seam(path: Path) -> None:
    seam = re.compile(rf"^( *){SEAM}.*\n", re.MULTILINE)
    path.write_text(seam.sub(rf"\g<0>\1{OURS}\n", path.read_text()))


def test_pods_of_an_earlier_release_are_selected_by_the_next_one(
    template: Path, tmp_path: Path
) -> None:
    """The selector of a Deployment cannot change: `kubectl apply` would fail.

    A Service that selects other labels has no pod until the first new one is ready.
    """
    answers = {"runtime": "kubernetes", "with_celery": True}
    project = project_on(template, tmp_path / "shop", "asyncpg", "1.0.0rc2", **answers)
    before = selectors(project)
    assert len(before) == 4
    file = project / "deploy" / "kubernetes.yaml"
    text = file.read_text().replace("image: shop #", "image: example.com/shop:1 #")
    file.write_text(text)
    commit(project, "Our image")
    update(project)

    assert_merged(project)
    after = selectors(project)
    assert {each: after[each] for each in before} == before
    assert not file.exists()  # CHANGELOG.md says where its changes go


def selectors(project: Path) -> dict[tuple[str, str], Any]:
    """Of each Service and Deployment, by kind and name."""
    return {
        (document["kind"], document["metadata"]["name"]): document["spec"]["selector"]
        for path in (project / "deploy").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] in {"Deployment", "Service"}
    }


# Modules of the first release that are somewhere else now.
MOVED = (
    *("errors.py", "health.py", "logs.py", "middleware.py", "db/connect.py"),
    *("db/engine.py", "db/environment.py", "db/faults.py", "db/migrate.py"),
    "db/pool.py",
)
# What is imported by the names of the first release.
NOTES = '''"""Notes about orders."""

from fastapi import APIRouter, Request
from sqlalchemy import func, select

from .db.session import Database, Read
from .models import Order

router = APIRouter(prefix="/notes")


@router.get("")
async def note(session: Read, request: Request) -> str:
    database: Database = request.state.database
    async with database.read() as other:
        paid = await other.scalar(select(func.count()).where(Order.status == "paid"))
    orders = await session.scalar(select(func.count()).select_from(Order))
    return f"{paid} of {orders}{request.state.suffix}"
'''
NOTES_TEST = '''"""The route of this service, its setting and its resource."""

from httpx import AsyncClient


async def test_note(client: AsyncClient) -> None:
    assert (await client.get("/notes")).json() == "0 of 0!"
'''


def work_on_first_release(project: Path) -> set[str]:
    """A route, a setting and a resource; returns the files of the owner."""
    (package,) = (project / "src").iterdir()
    (package / "notes.py").write_text(NOTES)
    (project / "tests" / "test_notes.py").write_text(NOTES_TEST)
    replace(
        package / "api.py",
        ("from . import orders\n", "from . import notes, orders\n"),
        (
            "router.include_router(orders.router)\n",
            "router.include_router(orders.router)\n"
            "router.include_router(notes.router)\n",
        ),
        ("    yield {}\n", '    yield {"suffix": settings.suffix}\n'),
    )
    replace(
        package / "settings.py",
        ("    # Add yours here", '    suffix: str = "!"\n    # Add yours here'),
    )
    own = ("api.py", "models.py", "notes.py", "orders.py", "settings.py")
    return {
        *(f"src/{package.name}/{name}" for name in own),
        *("tests/test_notes.py", "tests/test_orders.py"),
    }


@pytest.mark.boot
@pytest.mark.parametrize("driver", DRIVERS)
def test_service_of_the_first_release_works_after_the_update(
    template: Path,
    tmp_path: Path,
    database: Callable[[str], dict[str, str]],
    install: Callable[[Service], Service],
    driver: str,
) -> None:
    project = project_on(template, tmp_path / "shop", driver, FIRST)
    own = work_on_first_release(project)
    commit(project, "Our work")
    before = files(project)
    assert before.keys() >= own | {f"src/shop/{path}" for path in MOVED}

    update(project)

    assert_merged(project)
    after = files(project)
    assert {path: after[path] for path in own} == {path: before[path] for path in own}
    assert [path for path in MOVED if f"src/shop/{path}" in after] == []
    shop, variables = install(Service(project)), database(driver)
    assert "passed" in shop.make("test")
    shop.make("lint")
    shop.make("migrate", **variables)
    with shop.running(**variables, SUFFIX=" orders") as running:
        assert running.client.post("/orders", json=ORDER).status_code == 201
        assert running.client.get("/notes").json() == "0 of 1 orders"
        too_long = running.client.post("/orders", content=b" " * 2_000_000)
        assert too_long.status_code == 413


def test_release_with_a_commit_that_is_lost_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [("1.0.0", "0" * 40)]
    monkeypatch.setattr("tests.support.rendering.releases", lambda: lost)
    with pytest.raises(LookupError, match=r"1\.0\.0"):
        snapshot(tmp_path / "clone")


@pytest.mark.boot
@pytest.mark.parametrize("driver", DRIVERS)
def test_service_with_work_of_its_own_passes_its_tests(
    next_template: Path,
    tmp_path: Path,
    install: Callable[[Service], Service],
    driver: str,
) -> None:
    project = project_on(next_template, tmp_path / "shop", driver, NEXT)
    work_on(project)
    commit(project, "Our work")
    update(project)

    assert "passed" in install(Service(project)).make("test")


@pytest.mark.boot
def test_tasks_run_in_a_service_whose_example_is_gone(
    template: Path, tmp_path: Path, install: Callable[[Service], Service]
) -> None:
    """A worker runs the task that needs no table."""
    project = project_on(template, tmp_path / "shop", "asyncpg", NEXT)
    work_on(project)
    commit(project, "Our work")
    update(project, {"with_celery": True})

    assert_merged(project)
    shop = install(Service(project))
    assert "passed" in shop.make("test")
    on_servers = ("python", "tests/database.py", "python", "tests/broker.py")
    with all_tests(shop) as tests:
        pytest_ = ("pytest", "-q", f"{tests}/test_worker.py")
        done = shop.command("uv", "run", "--quiet", *on_servers, *pytest_)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    shop.make("format")
    shop.make("lint")


@pytest.mark.boot
def test_make_update_updates(next_template: Path, tmp_path: Path) -> None:
    """The command of the README, as a developer runs it: with no .env, and with one."""
    project = project_on(next_template, tmp_path / "shop", "aiosqlite", NEXT)
    Service(project).make("update")
    assert load_answers(project)["_commit"] == AFTER_NEXT
    commit(project, "Updated")
    (project / ".env").write_text("LOG_LEVEL=INFO\n")
    Service(project).make("update")


def revision_at_a_terminal(service: Service, answer: str) -> tuple[int, str]:
    """`make revision` without a message asks for it: exit code, and what it says."""
    prompt = pexpect.spawn(
        "make",
        ["revision"],
        cwd=str(service.folder),
        env=service._environment(),
        encoding="utf-8",
        timeout=120,
    )
    prompt.expect("What changes")
    prompt.sendline(answer)
    prompt.expect(pexpect.EOF)
    prompt.close()
    return prompt.exitstatus, prompt.before


@pytest.mark.boot
@pytest.mark.parametrize("driver", DRIVERS)
def test_example_can_be_deleted_as_the_readme_says(
    template: Path,
    tmp_path: Path,
    install: Callable[[Service], Service],
    driver: str,
) -> None:
    project = project_on(template, tmp_path / "shop", driver, NEXT)
    package = project / "src" / "shop"
    delete_example(project)
    replace(
        package / "api.py",
        ("from . import orders, payments\n", ""),
        ("router.include_router(orders.router)\n", ""),
        ("router.include_router(payments.router)\n", ""),
    )
    service = install(Service(project))
    assert "passed" in service.make("test")
    (package / "models.py").write_text('"""Your tables."""\n')
    code, said = revision_at_a_terminal(service, "no orders")
    assert code == 0, said
    assert "passed" in service.make("test")
    # Or, where it was never deployed: git keeps no folder that is empty.
    versions = project / "migrations" / "versions"
    shutil.rmtree(versions)
    assert "passed" in service.make("test")
    (package / "models.py").write_text(MODELS)
    refused = service.command("make", "revision", "MESSAGE= ")
    assert SAY in refused.stderr
    code, said = revision_at_a_terminal(service, " ")
    assert (code != 0, SAY in said) == (True, True)
    message = "the 'things' of `$HOME`: 100 \"%\"\nand more\\"
    done = service.command("make", "revision", f"MESSAGE={message}")
    assert done.returncode == 0, done.stderr

    (revision,) = versions.glob("*_the_things_of_home_100_and_more.py")
    assert f"{message}\\\n" in revision.read_text()
    assert "passed" in service.make("test")
    service.make("format")
    service.make("lint")
