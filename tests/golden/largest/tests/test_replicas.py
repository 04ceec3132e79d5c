"""Where reads go, as far as one server shows it: the rest needs a real replica."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from database import UNREACHABLE
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError
from sqlalchemy import select, text

from largest import main
from largest.consistency import COOKIE, HEADER
from largest.db import replica, replicas
from largest.db import session as sessions
from largest.db.position import (
    SEEN,
    Position,
    from_token,
    includes,
    to_token,
)
from largest.db.url import SCHEMES
from largest.settings import Settings

GARBAGE = ["", "none", ":", "a:-1", ":1;", ":" + "9" * 30, "_".join([":1"] * 20), "é:1"]


def with_replica(settings: Settings, **parts: Any) -> Settings:
    """The same server as its own replica, or what is not even a server."""
    there = settings.model_copy(update=parts)
    password = there.database_password
    url = there.sqlalchemy_url.set(
        drivername=SCHEMES[0],
        password=password.get_secret_value() if password else None,
        query={"sslmode": settings.database_sslmode},
    )
    urls = SecretStr(url.render_as_string(hide_password=False))
    return settings.model_copy(update={"database_replica_urls": urls})


async def looked_at(database: sessions.Database) -> str:
    """What is the matter with the replica, as soon as somebody has looked."""
    (replica,) = database.replicas
    async with asyncio.timeout(10):
        while replica.trouble == "not looked at yet":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return replica.trouble


async def read(database: sessions.Database) -> int | None:
    async with database.read() as session:
        return await session.scalar(select(text("1")))


@pytest.fixture
async def routed(settings: Settings) -> AsyncIterator[sessions.Database]:
    async with sessions.open_database(with_replica(settings)) as database:
        yield database


async def test_without_replicas_a_write_takes_no_position(
    database: sessions.Database,
) -> None:
    assert not database.replicas
    assert await read(database) == 1


async def test_replica_that_is_a_primary_is_not_read_from(
    routed: sessions.Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "show", lambda _: None)  # which empties the figures
    assert await looked_at(routed)

    assert await read(routed) == 1
    assert routed.replicas.fallbacks["none ready"] == 1


async def test_replica_that_refuses_spoils_no_read(settings: Settings) -> None:
    async with sessions.open_database(
        with_replica(settings, **UNREACHABLE)
    ) as database:
        assert await looked_at(database) == "unreachable"

        assert await read(database) == 1


async def test_start_does_not_wait_for_a_silent_replica(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "SILENT_SECONDS", 2)  # far above what a read takes
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        there = {"database_host": host, "database_port": port}
        async with sessions.open_database(with_replica(settings, **there)) as database:
            assert await read(database) == 1
            (one,) = database.replicas
            assert one.trouble == "not looked at yet"
            assert await looked_at(database) == "unreachable"


@pytest.fixture
async def routes(app: FastAPI) -> FastAPI:
    @app.post("/probe")
    async def write(session: sessions.Write) -> None:
        await session.execute(text("SELECT 1"))

    @app.post("/nested")
    async def write_in_parts(session: sessions.Write) -> None:
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))

    @app.get("/probe")
    async def look(session: sessions.Read) -> int | None:
        return await session.scalar(select(text("1")))

    @app.get("/seen")
    async def seen() -> Position:
        found = SEEN.get()
        return found.position if found else {}

    return app


async def test_write_is_answered_with_its_position(
    routes: FastAPI, settings: Settings, serve: Any
) -> None:
    routes.dependency_overrides.clear()
    app = main.create_app(with_replica(settings))
    app.router.routes.extend(routes.router.routes)
    async with serve(app) as client:
        written = await client.post("/probe")
        client.cookies.clear()
        unread = await client.get("/probe")
        in_parts = await client.post("/nested")

    position = from_token(written.headers[HEADER])
    assert position
    # The end of a savepoint is no commit.
    assert from_token(in_parts.headers[HEADER]).keys() == position.keys()
    cookie = written.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={written.headers[HEADER]}; Max-Age=60; ")
    assert "Secure" not in cookie  # not asked for over https
    assert HEADER not in unread.headers


@pytest.mark.parametrize(
    ("header", "cookie", "position"),
    [
        ("a:7", "", {"a": 7}),
        ("", "a:9", {"a": 9}),
        ("a:7", "a:9_b:1", {"a": 9, "b": 1}),
        ("a:9", "a:7", {"a": 9}),
    ],
)
async def test_client_has_seen_what_header_and_cookie_say(
    routes: FastAPI, serve: Any, header: str, cookie: str, position: Position
) -> None:
    async with serve(routes) as client:
        headers = {HEADER: header, "Cookie": f"{COOKIE}={cookie}"}
        seen = await client.get("/seen", headers=headers)

    assert seen.json() == position


async def test_request_does_not_know_what_another_has_seen(
    routes: FastAPI, serve: Any
) -> None:
    async with serve(routes) as client:
        await client.get("/seen", headers={HEADER: "a:7"})

        assert (await client.get("/seen")).json() == {}


async def test_token_of_nobody_is_ignored(routes: FastAPI, serve: Any) -> None:
    async with serve(routes) as client:
        for token in GARBAGE[:-1]:
            headers = {HEADER: token, "Cookie": f"{COOKIE}={token}"}
            assert (await client.get("/probe", headers=headers)).json() == 1


@pytest.mark.parametrize("token", GARBAGE)
def test_garbage_is_no_position(token: str) -> None:
    assert from_token(token) == {}


@pytest.mark.parametrize(
    "position", [{"": 50331976}, {"0": 100, "1": 5}, {"primary": 1}], ids=str
)
def test_position_survives_the_way_to_the_client(position: dict[str, int]) -> None:
    assert from_token(to_token(position)) == position
    assert includes(position, position)
    assert not includes({}, position)


HOSTS = f"{SCHEMES[0]}://user@localhost:1,127.0.0.1:2/name"


def test_first_of_several_hosts_is_asked_first(settings: Settings) -> None:
    several = Settings(database_url=HOSTS)

    found = [(each.database_host, each.database_port) for each in several.hosts()]
    assert found == [("localhost", 1), ("127.0.0.1", 2)]
    assert len(settings.hosts()) == 1


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"database_url": HOSTS.replace(":2", ":x")}, "is no host: write name:port"),
        ({"database_url": HOSTS.replace("127", "10")}, "names this machine and others"),
        (
            {"database_replica_urls": "http://user:secret@replica/name"},
            "DATABASE_REPLICA_URLS asks for http, but this service speaks",
        ),
    ],
)
def test_wrong_servers_are_refused_in_one_sentence(
    variables: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ValidationError, SystemExit), match=sentence) as error:
        Settings(**({"database_url": HOSTS} | variables))

    assert "secret" not in str(error.value)
