"""The questionnaire: what is refused, in which words, and what follows from answers."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest
from copier._main import Worker

from tests.support.combinations import questionnaire
from tests.support.rendering import Answers, load_answers, questions, render

LOCKED = "This follows from the other answers and cannot be set."
NAME = "Use lower-case letters, digits and hyphens, a letter first, as in my-service."
PACKAGE = "Use at most 30 lower-case letters, digits and underscores, a letter first"
TEXT = "Use one line of 1 to 100 characters, without quotation marks"
SQLITE: Answers = {"driver": "aiosqlite"}
MYSQL: Answers = {"driver": "asyncmy"}
CELERY: Answers = {"with_celery": True}
AURORA: Answers = {"cloud": "aws_aurora"}
AZURE: Answers = {"cloud": "azure"}

REFUSED: list[tuple[Answers, str]] = [
    ({"project_name": "My Service"}, NAME),
    ({"project_name": "service-"}, NAME),
    ({"project_name": "service\n"}, NAME),
    ({"project_name": "fastapi"}, "choose another, as in fastapi-service."),
    ({"project_name": "uvicorn-worker"}, "choose another, as in uvicorn-worker-servi"),
    ({"project_name": "httpx2-jsfetch"}, "choose another, as in httpx2-jsfetch-serv"),
    ({"package_name": "my-service"}, PACKAGE),
    ({"package_name": "1service"}, PACKAGE),
    ({"package_name": "class"}, "class is the name of a keyword of Python"),
    ({"package_name": "json"}, "json is the name of a module of Python: choose"),
    ({"package_name": "sqlalchemy"}, "sqlalchemy is the name of a dependency"),
    ({"package_name": "postgres"}, "postgres is the name of a role or a database of"),
    ({"package_name": "pg_shop"}, "PostgreSQL has the names that begin with pg_"),
    ({"package_name": "broker"}, "broker is the name of a folder or a module beside"),
    ({"package_name": "tests"}, "tests is the name of a folder or a module beside it"),
    ({"package_name": "a" * 31}, PACKAGE),
    ({"description": 'say "hi"'}, TEXT),
    ({"description": "back\\slash"}, TEXT),
    ({"description": "two\nlines"}, TEXT),
    ({"description": "x" * 101}, TEXT),
    ({"description": ""}, TEXT),
    ({"description": " padded "}, TEXT),
    ({"driver": "psycopg2"}, "Invalid choice"),
    ({"cloud": "moon"}, "Invalid choice"),
    ({"database_size": "db.t4g.micro"}, "Invalid choice"),
    ({"runtime": "mainframe"}, "Invalid choice"),
    ({"max_connections": 0}, "Use a number from 1 to 262143."),
    ({"max_connections": "many"}, "invalid literal for int()"),
    ({"max_instances": 0}, "Use a number from 1 to 10000."),
    ({"workers_per_instance": 0}, "Use a number from 1 to 64."),
    (
        {"max_instances": 20, "workers_per_instance": 4},
        "26 instances at the peak of a rollout x 4 workers = 104 connections, but of "
        "max_connections 100 only 81 are left for them: use a pooler, fewer instances, "
        "fewer workers or a bigger server",
    ),
    (
        {"max_instances": 12, "with_replicas": True},
        "18 instances at the peak of a rollout x 2 workers x 3 = 108 connections, but "
        "of max_connections 100 only 81 are left for them",
    ),
    (MYSQL | {"max_connections": 100_001}, "Use a number from 1 to 100000."),
    (MYSQL | {"max_instances": 99}, "but of max_connections 151 only 129 are left"),
    ({"max_connections": 12}, "8 connections, but of max_connections 12 only 2 are"),
    (SQLITE | {"max_connections": 50}, "SQLite has no max_connections: leave it out."),
    (SQLITE | {"database_size": "custom"}, "SQLite has no server to size"),
    (SQLITE | {"server_version": "18"}, "SQLite has no server: leave it out."),
    ({"server_version": "18.1"}, "Use a major version of PostgreSQL from 14 on, as i"),
    ({"server_version": "9"}, "Use a major version of PostgreSQL from 14 on, as in 18"),
    (MYSQL | {"server_version": "18"}, "Use a version of MariaDB or MySQL with two"),
    ({"ci": "jenkins"}, "Invalid choice"),
    (SQLITE | {"pooler": "none"}, "SQLite has no server to pool: leave it out."),
    (SQLITE | {"auth": "password"}, "SQLite has no login: leave it out."),
    (SQLITE | {"with_replicas": True}, "SQLite is a file on one machine: leave it"),
    (
        {"runtime": "lambda", "with_replicas": True},
        "A function stands still between two requests, and cannot look after a replica",
    ),
    (SQLITE | {"cloud": "neon"}, "SQLite is a file on one machine: choose self_host"),
    (SQLITE | {"runtime": "lambda"}, "SQLite is a file on one machine: choose conta"),
    (MYSQL | {"cloud": "azure"}, "here for PostgreSQL only: choose another place, or"),
    (MYSQL | {"pooler": "session"}, "there is none for this database: choose none"),
    (AURORA | {"pooler": "statement"}, "'statement' is not in"),
    (AZURE | {"pooler": "session"}, "there is none here: choose none or transaction"),
    (
        AZURE | {"database_size": "B2s", "pooler": "transaction"},
        "Azure has none for a burstable size: choose none, or another size",
    ),
    (AZURE | {"runtime": "cloud_run"}, "the database is too far away: choose containe"),
    (AZURE | {"runtime": "lambda"}, "the database is too far away: choose container"),
    (
        {"project_name": "s" * 54, "runtime": "kubernetes"},
        "a project_name has at most 53 letters there: choose a shorter one, or contain",
    ),
    (
        {"project_name": "s" * 42, "runtime": "cloud_run"},
        "a project_name has at most 41 letters there: choose a shorter one, or contain",
    ),
    (
        AURORA | {"database_size": "db.r6g.large", "max_connections": 99},
        "db.r6g.large comes with its max_connections: leave it out, or choose the size",
    ),
    ({"auth": "token"}, "there are none for this database: choose password"),
    (
        AURORA | {"pooler": "transaction", "auth": "token"},
        "PgBouncer checks passwords only: choose password",
    ),
    (
        AURORA | {"runtime": "lambda", "max_instances": 1000},
        "1000 functions = 1000 connections, but of max_connections 100 only 76 are "
        "left for them: use a pooler, fewer functions or a bigger server",
    ),
    (
        {"runtime": "cloud_run", "workers_per_instance": 4},
        "There is one process in each instance: leave it out.",
    ),
    (
        {"cloud": "supabase", "database_size": "nano", "pooler": "transaction"}
        | {"max_instances": 99},
        "105 instances at the peak of a rollout x 2 workers = 210 connections, but "
        "Supavisor takes only 200: use fewer instances or fewer workers",
    ),
    (
        {"max_connections": 8, "pooler": "transaction"},
        "but of max_connections 8 only 0 are left for them: use fewer instances",
    ),
    (SQLITE | {"with_celery": True}, "SQLite is a file on one machine: leave it out."),
    ({"runtime": "lambda", "with_celery": True}, "A worker runs all the time, and not"),
    (
        {"runtime": "lambda", "with_tracing": True},
        "and cannot export its spans: answer",
    ),
    (
        {"runtime": "cloud_run", "with_celery": True},
        "answer no, or choose another runt",
    ),
    ({"celery_engine": "per_task"}, "There is no Celery: leave it out."),
    ({"celery_instances": 1}, "There is no Celery: leave it out."),
    ({"celery_concurrency": 1}, "There is no Celery: leave it out."),
    (CELERY | {"celery_engine": "threads"}, "Invalid choice"),
    (CELERY | {"celery_instances": 0}, "Use a number from 1 to 1000."),
    (CELERY | {"celery_concurrency": 65}, "Use a number from 1 to 64."),
    (
        CELERY | {"celery_concurrency": 20},
        "8 connections and 80 of Celery, but of max_connections 100 only 81 are left "
        "for them: use a pooler, fewer instances, fewer workers, fewer tasks at once",
    ),
    (
        SQLITE | {"max_instances": 2},
        "SQLite is a file on one machine: use 1 instance, or a driver with a server.",
    ),
]


@pytest.mark.parametrize(("answers", "sentence"), REFUSED)
def test_refused_with_a_sentence_and_nothing_written(
    quickly: Callable[[Path, Answers], Path],
    tmp_path: Path,
    answers: Answers,
    sentence: str,
) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        quickly(tmp_path / "out", answers)

    assert not (tmp_path / "out").exists()


def test_facts_cannot_be_forced(template: Path) -> None:
    asked = questions(template)
    with Worker(str(template)) as worker:
        facts = worker.template.questions_data.keys() - asked.keys()

    assert {"dialect", "has_server", "budget", "session_init_variant"} <= facts
    with questionnaire(template) as answer:
        for fact in facts:
            with pytest.raises(ValueError, match=LOCKED):
                answer({fact: {} if fact == "budget" else "1"})


@pytest.mark.parametrize(
    ("folder", "project", "package"),
    [
        ("my-service", "my-service", "my_service"),
        ("My Service 2", "my-service-2", "my_service_2"),
        ("2fast", "fast", "fast"),
        ("json", "json", "json_service"),
        ("asyncpg", "asyncpg-service", "asyncpg_service"),
        ("---", "service", "service"),
        # tests/test_service.py would hide a package of that name.
        ("test", "test", "test_app"),
        (
            "far-more-than-thirty-letters-long",
            "far-more-than-thirty-letters-long",
            "far_more_than_thirty_letters_l",
        ),
    ],
)
def test_names_follow_from_the_folder(
    template: Path, tmp_path: Path, folder: str, project: str, package: str
) -> None:
    answers = load_answers(render(template, tmp_path / folder, {}))

    assert (answers["project_name"], answers["package_name"]) == (project, package)


def test_only_answers_are_recorded(template: Path, tmp_path: Path) -> None:
    answers = load_answers(render(template, tmp_path / "service", SQLITE))

    assert answers.keys() == {
        "_commit",
        "_src_path",
        "ci",
        "cloud",
        "description",
        "driver",
        "max_instances",
        "package_name",
        "project_name",
        "runtime",
        "with_tracing",
        "workers_per_instance",
    }


def copier(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "copier", "copy", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_line_copies_without_trust_and_prints_the_budget(
    template: Path, tmp_path: Path
) -> None:
    done = copier("--defaults", template, tmp_path / "service")

    assert done.returncode == 0
    assert (
        "8 processes at the peak of a rollout x 10 connections = 80 of the 81 that"
        in done.stderr
    )


def test_command_line_refuses_in_its_last_line_with_exit_code_1(
    template: Path, tmp_path: Path
) -> None:
    done = copier(
        "--defaults", "--data", "max_instances=99", template, tmp_path / "service"
    )

    assert done.returncode == 1
    assert "use a pooler, fewer instances" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "service").exists()


def test_prompt_says_what_is_wrong_and_asks_again(
    template: Path, tmp_path: Path
) -> None:
    """One walk through the questionnaire at a terminal."""
    prompt = pexpect.spawn(
        sys.executable,
        ["-m", "copier", "copy", str(template), str(tmp_path / "service")],
        encoding="utf-8",
        # Nobody answers where the cursor is: do not wait for it at each question.
        env=os.environ | {"PROMPT_TOOLKIT_NO_CPR": "1"},
        timeout=30,
        dimensions=(50, 250),
    )
    prompt.expect("Name of the project")
    prompt.send("\x15shop\r")
    prompt.expect("Name of the Python package")
    prompt.send("\x15class\r")
    prompt.expect("class is the name of a keyword of Python")
    prompt.send("\x15shop\r")
    for question in (
        *("What it is for", "driver", "database live", "Size", "max_conn"),
        "Version of that server",
    ):
        prompt.expect(question)
        prompt.send("\r")
    prompt.expect("Where does the service run")
    prompt.send("\r")
    prompt.expect("Connection pooler")
    prompt.expect("RDS Proxy.*there is none here")
    prompt.send("\r")
    prompt.expect("Read from replicas")
    prompt.send("\r")
    prompt.expect("Run tasks in the background")
    prompt.send("\r")
    prompt.expect("by OpenTelemetry")
    prompt.send("\r")
    prompt.expect("At most how many containers")
    prompt.send("\r")
    prompt.expect("gunicorn workers")
    prompt.send("\x1564\r")
    prompt.expect("= 256 connections")
    prompt.send("\x15" + "3\r")
    prompt.expect("Where do its tests run")
    prompt.send("\r")
    prompt.expect(pexpect.EOF)
    prompt.close()

    assert prompt.exitstatus == 0
    assert load_answers(tmp_path / "service")["workers_per_instance"] == 3
