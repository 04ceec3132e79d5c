"""The roles of deploy/bootstrap.sql, on each server: who may do what, and no more."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pymysql
import pytest
from sqlalchemy import make_url

from tests.service.test_doctor import doctor
from tests.support.rendering import ROOT
from tests.support.servers import NETWORKED_ON, SERVERS, Server, binaries
from tests.support.service import Service, conversation

pytestmark = pytest.mark.boot

GOLDEN = ROOT / "tests" / "golden" / "conversation.json"
PASSWORDS = {
    "shop_owner": "owner's-canary",
    "shop": "canary-of-the-service",
    "shop_reader": "canary-of-the-reader",
}
WRONG = "wrong"
# What the administrator of a cloud has: no superuser, and no SUPER.
ADMIN = {
    "postgresql": ["CREATE ROLE admin LOGIN CREATEDB CREATEROLE"],
    "mysql": [
        "CREATE USER admin",
        "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS,"
        " REFERENCES, INDEX, ALTER, SHOW DATABASES, CREATE TEMPORARY TABLES,"
        " LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW,"
        " SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER"
        " ON *.* TO admin WITH GRANT OPTION",
    ],
}
VALIDATION = "INSTALL COMPONENT 'file://component_validate_password'"
DENIED, READ_ONLY = {"42501", "1142"}, {"25006", "1142"}
INSERT = "INSERT INTO alembic_version VALUES ('stray')"
# By role, what is rejected, in one session.
REJECTED = [
    ("shop", ["CREATE TABLE stray (id integer)"], DENIED),
    ("shop", ["ALTER TABLE orders ADD stray integer"], DENIED),
    ("shop", ["DROP TABLE order_lines"], DENIED),
    ("shop_reader", [INSERT], READ_ONLY),
    ("shop_reader", ["START TRANSACTION READ WRITE", INSERT], DENIED),
    (
        "shop_reader",
        ["START TRANSACTION READ WRITE", "DELETE FROM order_lines"],
        DENIED,
    ),
    (
        "shop_reader",
        ["START TRANSACTION READ WRITE", "DROP TABLE order_lines"],
        DENIED,
    ),
    (
        "shop_reader",
        ["START TRANSACTION READ WRITE", "CREATE TABLE stray (id integer)"],
        DENIED,
    ),
]


def bootstrap(shop: Service, server: Server, user: str) -> None:
    """Run the file as it says: passwords come from no command line."""
    url = make_url(server.url)
    if url.get_backend_name() == "postgresql":
        admin = url.set(username=user).render_as_string(hide_password=False)
        command: list[str | Path] = [binaries() / "psql", "--no-psqlrc", admin]
        command.append("--file=deploy/bootstrap.sql")
        passwords = "".join(f"{each}\n{each}\n" for each in PASSWORDS.values())
        run(shop, command, passwords)
        return
    command = ["mariadb", "--no-defaults", f"--host={url.host}", f"--port={url.port}"]
    command.append(f"--user={user}")
    run(shop, command, (shop.folder / "deploy" / "bootstrap.sql").read_text())
    for role, password in PASSWORDS.items():
        name = f"{role} IDENTIFIED BY '{password.replace(chr(39), chr(39) * 2)}'"
        run(shop, command, f"ALTER USER {name} ACCOUNT UNLOCK;")


def run(shop: Service, command: list[str | Path], given: str) -> None:
    done = subprocess.run(
        command,
        input=given,
        cwd=shop.folder,
        env=os.environ | {"PGOPTIONS": "-c client_min_messages=warning"},
        capture_output=True,
        text=True,
        check=False,
        # psql asks for a password at the terminal if there is one.
        start_new_session=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert "WARNING" not in done.stderr


def rejection(url: str, statements: list[str]) -> str:
    """The code with which the server rejects the last statement."""

    async def execute() -> str:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)
        finally:
            await connection.close()
        return "done"

    parts = make_url(url)
    if parts.get_backend_name() == "postgresql":
        return asyncio.run(execute())
    with pymysql.connect(
        host="127.0.0.1",
        port=int(parts.port or 0),
        user=parts.username,
        password=str(parts.password),
        database=parts.database,
        ssl_ca=parts.query["sslrootcert"],
    ) as connection:
        try:
            for statement in statements:
                connection.cursor().execute(statement)
        except pymysql.MySQLError as error:
            return str(error.args[0])
    return "done"


@pytest.mark.parametrize(("driver", "name"), NETWORKED_ON)
def test_owner_migrates_app_serves_reader_reads_and_none_does_more(
    routed: Callable[[str], Service], driver: str, name: str
) -> None:
    shop = routed(driver)
    with TemporaryDirectory() as folder, SERVERS[name](Path(folder)) as server:
        dialect = make_url(server.url).get_backend_name()
        for statement in ADMIN[dialect]:
            server.execute(statement)
        if name == "mysql":  # as clouds have it
            server.execute(VALIDATION)
            server.execute("SET GLOBAL validate_password.policy = LOW")
        for _ in range(2):
            bootstrap(shop, server, "admin")
        urls = {
            role: make_url(server.verified_of("shop"))
            .set(username=role, password=password)
            .render_as_string(hide_password=False)
            for role, password in PASSWORDS.items()
        }
        wrong = {role: make_url(url).set(password=WRONG) for role, url in urls.items()}
        shop.migrate(DATABASE_URL=urls["shop_owner"])
        with shop.running(DATABASE_URL=urls["shop"]) as running:
            assert conversation(running.client) == json.loads(GOLDEN.read_text())

        for role, statements, codes in REJECTED:
            assert rejection(urls[role], statements) in codes, (role, statements)
        read = ["SELECT customer FROM orders JOIN order_lines ON order_id = orders.id"]
        assert rejection(urls["shop_reader"], read) == "done"
        for url in wrong.values():
            with suppress(asyncpg.InvalidPasswordError, pymysql.OperationalError):
                rejection(url.render_as_string(hide_password=False), ["SELECT 1"])
                raise AssertionError(url)
        # After tables are there, as for a change of the file.
        bootstrap(shop, server, "admin")
        bootstrap(shop, server, make_url(server.url).username or "")

        serving = doctor(shop, DATABASE_URL=urls["shop"])
        owning = doctor(shop, DATABASE_URL=urls["shop_owner"])

    assert serving["role"][0] == "ok", serving
    assert serving["role"][1].startswith("shop")
    assert owning["role"][0] == "warn"
    assert owning["role"][1].startswith("shop_owner")
