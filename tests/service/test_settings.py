"""Settings of a rendered service: right values, and the messages about wrong ones."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import servers
from tests.support.rendering import Answers
from tests.support.servers import NETWORKED, Server
from tests.support.service import Service

pytestmark = pytest.mark.boot

DRIVERS = servers.DRIVERS
WITH_TASKS: Answers = {
    "driver": "asyncpg",
    "with_replicas": True,
    "with_celery": True,
}
WRONG: dict[str, list[tuple[dict[str, str], str]]] = {
    "asyncpg": [
        ({}, "DATABASE_HOST is missing: set DATABASE_URL, or DATABASE_HOST,"),
        (
            {"DATABASE_URL": "postgresql+psycopg2://u:hunter2@h/d"},
            "DATABASE_URL asks for postgresql+psycopg2, but this service uses asyncpg"
            ": write postgresql+asyncpg:// or postgresql://.",
        ),
        (
            {"DATABASE_URL": "mysql://u:hunter2@h/d"},
            "DATABASE_URL asks for mysql, but this service uses asyncpg",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL: write postgresql://"),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h:port/d"},
            "DATABASE_URL is not a URL",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d?ssl=on"},
            "DATABASE_URL has the unknown parameter ssl: remove it"
            " (host, port, sslmode and sslrootcert are known).",
        ),
        *(
            ({"DATABASE_URL": f"postgresql://{rest}"}, f"DATABASE_URL {sentence}")
            for rest, sentence in (
                ("u:hunter2@h:0/d", "is not a URL: its port is no number to 65535;"),
                ("u:hunter2@h:70000/d", "is not a URL: its port is no number to 65535"),
                ("u:x@hunter2@h/d", "is not a URL: write postgresql://user:password@"),
                ("u:hunter2@h!/d", "is not a URL: its host is no name or address; in"),
                ("u:hunter2@h/d\x07", "has a blank or a control character: remove it."),
                ("u:hunter2%00@h/d", "has a blank or a control character: remove it."),
                ("u:hunter2%E4@h/d", "is not a URL: encode it as UTF-8."),
                ("u:hunter2@h1,h2:5432/d", "names several hosts: name one, or answer"),
                ("u:hunter2@/d?host=/a,/b", "names several local sockets: name one."),
                (
                    "u:hunter2@h/d?host=/a",
                    "names a host, a socket, a port or a paramet",
                ),
                ("u:hunter2@/d?host=a", "has host= without a path, which is that of a"),
            )
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h"},
            "DATABASE_NAME is missing in DATABASE_URL: write postgresql://user:",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@/d?host=/a&sslmode=require"},
            "DATABASE_SSLMODE=require asks for encryption, which a local socket has",
        ),
        (
            {
                "DATABASE_HOST": "u:hunter2@h",
                "DATABASE_USER": "u",
                "DATABASE_NAME": "d",
            },
            "DATABASE_HOST: write one name, address, or path of a local socket, with",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_USER": "v"},
            "DATABASE_URL and DATABASE_USER say the same: remove one of them.",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_SSLMODE": "maybe"},
            "DATABASE_SSLMODE: Input should be 'disable', 'require', 'verify-ca' or",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "DATABASE_POOL_SIZE": "0"},
            "DATABASE_POOL_SIZE: Input should be greater than 0.",
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hunter2@h/d",
                "DATABASE_MAX_OVERFLOW": "-1",
            },
            "DATABASE_MAX_OVERFLOW: Input should be greater than or equal to 0.",
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d?sslrootcert=/no/ca.pem"},
            "DATABASE_SSLROOTCERT: Path does not point to a file.",
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hunter2@h/d",
                "DATABASE_SSLROOTCERT": "pyproject.toml",
            },
            "DATABASE_SSLROOTCERT: there is no certificate in pyproject.toml.",
        ),
        (
            {
                "DATABASE_URL": "postgresql://u:hunter2@h/d",
                "DATABASE_LOCK_TIMEOUT_SECONDS": "0",
            },
            "DATABASE_LOCK_TIMEOUT_SECONDS: Input should be greater than or equal",
        ),
        *(
            (
                {"DATABASE_URL": "postgresql://u:hunter2@h/d"}
                | {f"DATABASE_{name}_TIMEOUT_SECONDS": seconds},
                sentence,
            )
            for name, seconds, sentence in (
                (
                    "LOCK",
                    "1",
                    "1 s does not fit in DATABASE_LOCK_TIMEOUT_SECONDS = 1 s",
                ),
                (
                    "LOCK",
                    "5",
                    "DATABASE_LOCK_TIMEOUT_SECONDS = 5 s does not fit in"
                    " DATABASE_STATEMENT_TIMEOUT_SECONDS = 5 s: lower the first or"
                    " raise the second.",
                ),
                (
                    "STATEMENT",
                    "30",
                    "DATABASE_STATEMENT_TIMEOUT_SECONDS = 30 s does not fit in"
                    " DATABASE_CLIENT_TIMEOUT_SECONDS = 6 s",
                ),
                (
                    "CONNECT",
                    "2.5",
                    "1 s + DATABASE_CONNECT_TIMEOUT_SECONDS = 3.5 s does not fit in"
                    " DATABASE_ACQUIRE_TIMEOUT_SECONDS = 3 s",
                ),
                (
                    "CLIENT",
                    "7",
                    "DATABASE_ACQUIRE_TIMEOUT_SECONDS + DATABASE_CLIENT_TIMEOUT_SECONDS"
                    " + 1 s = 11 s does not fit in 10 s: lower the first",
                ),
            )
        ),
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d", "LOG_LEVEL": "LOUD"},
            "LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'.",
        ),
    ],
    "psycopg": [
        (
            {"DATABASE_URL": "postgresql+asyncpg://u:hunter2@h/d"},
            "DATABASE_URL asks for postgresql+asyncpg, but this service uses psycopg",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL: write postgresql://"),
    ],
    "aiomysql": [
        (
            {"DATABASE_URL": "mysql+pymysql://u:hunter2@h/d"},
            "DATABASE_URL asks for mysql+pymysql, but this service uses aiomysql"
            ": write mysql+aiomysql:// or mysql://.",
        ),
        (
            {"DATABASE_URL": "mysql://u:hunter2@h/d?ssl_ca=/ca.pem"},
            "DATABASE_URL has the unknown parameter ssl_ca: remove it",
        ),
    ],
    "asyncmy": [
        (
            {"DATABASE_URL": "postgresql://u:hunter2@h/d"},
            "DATABASE_URL asks for postgresql, but this service uses asyncmy",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL: write mysql://"),
    ],
    "aiosqlite": [
        (
            {"DATABASE_URL": "sqlite+pysqlite:///hunter2"},
            "DATABASE_URL asks for sqlite+pysqlite, but this service uses aiosqlite",
        ),
        (
            {"DATABASE_URL": "sqlite:///:memory:"},
            "DATABASE_URL must end in the path of a file: write sqlite:///path.",
        ),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL is not a URL"),
        (
            {"DATABASE_URL": "sqlite:///a", "DATABASE_PATH": "b"},
            "DATABASE_URL and DATABASE_PATH say the same: remove one of them.",
        ),
    ],
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_wrong_environment_is_one_sentence(
    service: Callable[[str], Service], driver: str
) -> None:
    shop = service(driver)
    variables = [case for case, _ in WRONG[driver]]
    done = shop.program("settings_errors", json.dumps(variables))

    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout
    lines = done.stdout.splitlines()
    for (_, sentence), line in zip(WRONG[driver], lines, strict=True):
        assert line.startswith(sentence)


RIGHT: dict[str, dict[str, str]] = {
    "asyncpg": {
        "postgres://u:p@db/shop": "postgresql+asyncpg://u:p@db:5432/shop verify-full",
        "postgresql://u@db:60/shop": "postgresql+asyncpg://u@db:60/shop verify-full",
        "postgresql+asyncpg://u:p%40@db/shop?sslmode=require": (
            "postgresql+asyncpg://u:p%40@db:5432/shop require"
        ),
        "postgresql://u@localhost/shop": (
            "postgresql+asyncpg://u@localhost:5432/shop disable"
        ),
        "postgresql://u@[::1]/shop": "postgresql+asyncpg://u@[::1]:5432/shop disable",
        "postgresql://u:p@/shop?host=/cloudsql/a:b:c": (
            "postgresql+asyncpg://u:p@[/cloudsql/a:b:c]:5432/shop disable"
        ),
        "postgresql://u:p@%2Fcloudsql%2Fa/shop?port=6": (
            "postgresql+asyncpg://u:p@/cloudsql/a:6/shop disable"
        ),
    },
    "psycopg": {
        "postgres://u:p@db/shop": "postgresql+psycopg://u:p@db:5432/shop verify-full",
    },
    "aiomysql": {
        "mysql://u:p@db/shop": "mysql+aiomysql://u:p@db:3306/shop verify-full",
        "mariadb://u@localhost/shop": "mysql+aiomysql://u@localhost:3306/shop disable",
        "mysql://u:p@/shop?unix_socket=/run/mysqld.sock": (
            "mysql+aiomysql://u:p@/run/mysqld.sock:3306/shop disable"
        ),
    },
    "asyncmy": {
        "mysql+asyncmy://u:p@db:33/shop?sslmode=verify-ca": (
            "mysql+asyncmy://u:p@db:33/shop verify-ca"
        ),
    },
    "aiosqlite": {
        "sqlite:///shop.db": "sqlite+aiosqlite:///shop.db ",
        "sqlite+aiosqlite:////data/shop.db": "sqlite+aiosqlite:////data/shop.db ",
    },
}


@pytest.mark.parametrize("driver", DRIVERS)
def test_urls_are_normalised(service: Callable[[str], Service], driver: str) -> None:
    urls = list(RIGHT[driver])
    done = service(driver).program("parsed_urls", json.dumps(urls))

    assert done.stdout.splitlines() == list(RIGHT[driver].values()), done.stderr


def test_secret_comes_from_a_file(
    service: Callable[[str], Service], tmp_path: Path
) -> None:
    (tmp_path / "database_password").write_text("hunter2\n")
    url = "postgresql://u@db/shop"
    done = service("asyncpg").program("password_file", str(tmp_path), DATABASE_URL=url)

    assert done.stdout == "hunter2 **********\n", done.stderr


def test_settings_in_memory_hold_for_replicas_and_for_the_broker(
    rendered: Callable[[Answers], Service],
) -> None:
    """Replicas have the limits of the worker; the environment is read once, and the
    fields that a service adds are no settings of a replica.
    """
    variables = {
        "DATABASE_URL": "postgresql://u:hunter2@db1:6432/d",
        "DATABASE_REPLICA_URLS": "postgresql://db2,postgresql://v@localhost:6000/e"
        ",postgresql://localhost:6000/f",
        "DATABASE_MAX_OVERFLOW": "3",
        "CELERY_BROKER_URL": "redis://broker/0",
    }
    done = rendered(WITH_TASKS).program("replica_settings", **variables)

    assert done.returncode == 0, done.stderr
    broker = "rediss://:hunter2@other:6379/1"
    assert json.loads(done.stdout) == {
        "replicas": [
            ["db2", 6432, "u", "hunter2", "d", "verify-full"],
            ["localhost", 6000, "v", "hunter2", "e", "disable"],
            ["localhost", 6000, "u", "hunter2", "f", "disable"],
        ],
        # Those of one address, a pooler's, are told apart and counted in full.
        "names": ["db2:6432", "localhost:6000/e", "localhost:6000/f"],
        "connections": 2 + 2 * (2 + 1),
        "limits": [2, 0, 4.0],
        "broker": [broker, broker, 17.0],
    }


PASSWORDS = [
    *("Sommer@Geheim", "Sommer/Geheim", "Sommer#Geheim", "Sommer?ssl=Geheim"),
    *("Sommer%Geheim", "Sommer:Geheim", "Sommer,Geheim", "Sommer Geheim"),
    *("Sommer[1]Geheim", "Sommer@:Geheim,x", "SommeräGeheim€"),
]
# Of a URL with its scheme and database; only the first one may be right.
SHAPES = [
    "{scheme}://user:{password}@127.0.0.1:1/{name}",
    "{scheme}://user:{password}@127.0.0.1,127.0.0.2:x/{name}",
    "{scheme}://127.0.0.1:1/{name}?password={password}",
    "{scheme}:{password}@127.0.0.1/{name}",
]
# What separates the parts of a URL, in the brackets that of a broker's or of a list.
RESERVED = re.compile(r"[@/#?% ]")
RESERVED_IN = {"CELERY_BROKER_URL": "[", "DATABASE_REPLICA_URLS": ","}


@pytest.mark.parametrize("driver", NETWORKED)
def test_odd_password_is_used_or_refused_and_never_shown(
    rendered: Callable[[Answers], Service], driver: str
) -> None:
    """By the settings, the log, the doctor and the metrics, in each URL."""
    pooled = (
        {"with_celery": True, "pooler": "transaction"} if driver == "asyncpg" else {}
    )
    shop = rendered({"driver": driver, "with_replicas": True} | pooled)
    done = shop.program("odd_urls", json.dumps([PASSWORDS, SHAPES]))

    assert done.returncode == 0, done.stderr[-2000:]
    assert not re.findall(r".*(?:Sommer|Geheim).*", done.stderr)
    outcomes = json.loads(done.stdout)
    assert {each[0] for each in outcomes} >= {"DATABASE_URL", "DATABASE_REPLICA_URLS"}
    for variable, password, is_raw, shape, outcome in outcomes:
        is_reserved = RESERVED.search(password) or RESERVED_IN.get(variable, "@") in (
            password
        )
        if shape == SHAPES[0] and not (is_raw and is_reserved):
            assert outcome == password, (variable, shape)
        else:
            assert outcome == "refused", (variable, password, shape)


WRONG_TASKS = {
    "missing": ({}, "CELERY_BROKER_URL: Field required."),
    "broker": (
        {"CELERY_BROKER_URL": "amqp://u:hunter2@broker/0"},
        "CELERY_BROKER_URL: write redis://:password@host/0, or rediss:// for TLS;",
    ),
    "number": (
        {"CELERY_BROKER_URL": "redis://:hunter2@broker/0", "CELERY_CONCURRENCY": "0"},
        "CELERY_CONCURRENCY: Input should be greater than or equal to 1.",
    ),
    "certificate": (
        {
            "CELERY_BROKER_URL": "redis://:hunter2@broker/0",
            "CELERY_BROKER_SSLROOTCERT": "pyproject.toml",
        },
        "CELERY_BROKER_SSLROOTCERT is of no use without TLS: write rediss:// in",
    ),
    "timeout": (
        {
            "CELERY_BROKER_URL": "redis://:hunter2@broker/0",
            "CELERY_TASK_TIMEOUT_SECONDS": "140",
        },
        "CELERY_TASK_TIMEOUT_SECONDS + 10 s = 150 s does not fit in"
        " CELERY_VISIBILITY_TIMEOUT_SECONDS = 150 s: lower the first or raise",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_TASKS)
def test_wrong_variable_of_tasks_ends_the_start_in_one_line(
    rendered: Callable[[Answers], Service], wrong: str
) -> None:
    changes, sentence = WRONG_TASKS[wrong]
    variables = {"DATABASE_URL": "postgresql://u@localhost/d", **changes}
    for command in ("gunicorn", "python -m shop.worker", "python -m shop.worker beat"):
        done = rendered(WITH_TASKS).command(*command.split(), **variables)

        assert (command, done.returncode) == (command, 1)
        assert done.stderr.startswith(sentence)
        assert len(done.stderr.splitlines()) == 1
        assert "hunter2" not in done.stdout + done.stderr


def test_migration_needs_no_variable_of_tasks(
    rendered: Callable[[Answers], Service],
    database: Callable[[str], dict[str, str]],
) -> None:
    wrong = {"CELERY_BROKER_URL": "nowhere", "CELERY_CONCURRENCY": "0"}
    variables = database("asyncpg") | wrong
    done = rendered(WITH_TASKS).command("alembic", "upgrade", "head", **variables)

    assert done.returncode == 0, done.stderr


def test_library_that_lacks_an_overridden_name_ends_the_start(
    service: Callable[[str], Service],
) -> None:
    program = (
        "from asyncio import Queue; from shop.db.config.environment import require;"
        "require(Queue, 'get', '_format'); require(Queue, 'get', 'gone')"
    )
    done = service("asyncpg").python("-c", program)

    assert done.returncode == 1
    assert done.stderr.startswith("asyncio.queues has no gone any more: install")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5"])
def test_wrong_number_of_workers_is_rejected_in_one_line(
    service: Callable[[str], Service], server_of: Callable[[str], Server], number: str
) -> None:
    url = server_of("asyncpg").url
    changes = {"DATABASE_URL": url, "WEB_CONCURRENCY": number}
    done = service("asyncpg").python("-m", "shop.db.doctor", **changes)

    assert done.returncode == 1
    sentence = f"WEB_CONCURRENCY={number}: write a whole number from 1 on."
    assert done.stderr.splitlines() == [sentence]


def test_service_without_a_worker_is_not_started(
    service: Callable[[str], Service],
) -> None:
    """It would listen, and answer nothing."""
    variables = {"DATABASE_URL": "postgresql://u:p@h/d", "WEB_CONCURRENCY": "0"}
    done = service("asyncpg").command("gunicorn", **variables)

    assert done.returncode == 1
    sentence = "WEB_CONCURRENCY=0: write a whole number from 1 on."
    assert done.stderr.splitlines() == [sentence]


@pytest.mark.parametrize("command", ["gunicorn", "alembic upgrade head"])
def test_wrong_environment_stops_a_command_in_one_line(
    service: Callable[[str], Service], command: str
) -> None:
    variables, sentence = WRONG["asyncpg"][1]
    done = service("asyncpg").command(*command.split(), **variables)

    assert done.returncode == 1
    assert done.stderr.startswith(sentence)
    assert len(done.stderr.splitlines()) == 1


def test_migration_of_an_unreachable_database_fails_in_one_line(
    service: Callable[[str], Service],
) -> None:
    url = "postgresql://postgres:hunter2@127.0.0.1:1/shop"
    done = service("asyncpg").command("alembic", "upgrade", "head", DATABASE_URL=url)

    assert done.returncode == 1
    assert done.stderr.startswith("Migration stopped: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr
