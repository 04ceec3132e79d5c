"""Where reads go, as far as one server shows it: the rest needs a real replica."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from database import UNREACHABLE
from fastapi import FastAPI
from prometheus_client import REGISTRY
from pydantic import SecretStr, ValidationError
from shop import main
from shop.db import Database, Read, Write, bulk_insert, open_database
from shop.db.config.backend import DIALECT, SCHEMES
from shop.db.engine.validation import retire
from shop.db.errors import CommitOutcomeUnknown
from shop.db.primary import PrimaryOnly
from shop.db.replicas import failover, replica, router
from shop.db.replicas.position import REPORTS_LAG, replay_position
from shop.db.replicas.router import ReplicaRouter
from shop.db.replicas.watermark import (
    PRIMARY_ONLY,
    Position,
    ReadWatermark,
    current_watermark,
    decode_token,
    encode_token,
    has_reached,
)
from shop.settings import Settings
from shop.web.read_your_writes import COOKIE, HEADER
from sqlalchemy import make_url, select, text

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
OTHER = "4f22fa47-71ca-11e1-9e33-c80aa9429562"
LONG = "_".join([":1"] * 2000)
GARBAGE = ["", "none", ":", "a:-1", ":1;", ":" + "9" * 30, "a b:1", LONG, "é:1"]


def with_replica(settings: Settings, **parts: Any) -> Settings:
    """The same server as its own replica, or an address without a server."""
    parts = {key.removeprefix("database_"): value for key, value in parts.items()}
    url = make_url(os.environ["DATABASE_URL"]).set(drivername=SCHEMES[0], **parts)
    url = url.set(query={"sslmode": settings.database_sslmode})
    urls = SecretStr(url.render_as_string(hide_password=False))
    return settings.model_copy(update={"database_replica_urls": urls})


def router_of(database: Database) -> ReplicaRouter:
    assert isinstance(database.router, ReplicaRouter)
    return database.router


async def probed(database: Database) -> str:
    """Why the replica is not healthy, as soon as a probe has ended."""
    (replica,) = router_of(database).replicas
    async with asyncio.timeout(30):
        while replica.unhealthy_reason == "not probed yet":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return replica.unhealthy_reason


async def read(database: Database) -> int | None:
    async with database.read() as session:
        return await session.scalar(select(text("1")))


@pytest.fixture
async def routed(settings: Settings) -> AsyncIterator[Database]:
    async with open_database(with_replica(settings)) as database:
        yield database


async def test_without_replicas_a_write_takes_no_position(database: Database) -> None:
    current_watermark.set(None)
    async with database.write() as session:
        await session.execute(text("SELECT 1"))

    assert isinstance(database.router, PrimaryOnly)
    assert current_watermark.get() is None
    assert await read(database) == 1


async def test_replica_that_is_a_primary_is_not_read_from(
    routed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "export", lambda *_: None)  # which clears the counts
    assert await probed(routed)

    assert await read(routed) == 1
    assert router_of(routed).fallbacks["none ready"] == 1


async def test_replica_that_cannot_be_reached_spoils_no_read(
    settings: Settings,
) -> None:
    async with open_database(with_replica(settings, **UNREACHABLE)) as database:
        assert await probed(database) == "unreachable"

        assert await read(database) == 1


async def test_replica_that_lags_is_probed_after_the_last_read(
    routed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gauge kept the lag of the moment at which reads stopped."""
    await probed(routed)
    found = router_of(routed)
    (one,) = found.replicas
    monkeypatch.setattr(one, "probe", lambda: None)

    def goes_on(lag: float, idle: float) -> bool:
        one.lag_seconds, found._used_at = lag, monotonic() - idle
        return found._tick()

    assert goes_on(0, idle=0)
    assert not goes_on(0, idle=5)
    assert goes_on(3, idle=5)
    assert not goes_on(3, idle=router.WATCH_SECONDS + 5)


async def test_name_with_several_addresses_is_no_failover(
    routed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a proxy: the gauge flipped, and its alerts page."""
    addresses = iter("abac")
    monkeypatch.setattr(failover, "peer_address", lambda *_: next(addresses))
    watch: Any = failover._Primary(routed.engine)
    connection, entry = (
        SimpleNamespace(driver_connection=None),
        SimpleNamespace(info={}),
    )

    def primary() -> set[str]:
        """After one more connect."""
        watch.on_connect(connection, entry)
        values = {
            host: REGISTRY.get_sample_value("database_primary", {"host": host})
            for host in "abc"
        }
        return {host for host, value in values.items() if value}

    assert [primary() for _ in range(3)] == [{"a"}] * 3
    retire(routed.engine)
    assert primary() == {"c"}


async def test_start_does_not_wait_for_a_silent_replica(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Far above the time of a read.
    monkeypatch.setattr(replica, "PROBE_TIMEOUT_SECONDS", 15)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        there = with_replica(settings, host=host, port=port)
        async with open_database(there) as database:
            assert await read(database) == 1
            (one,) = router_of(database).replicas
            assert one.unhealthy_reason == "not probed yet"
            assert await probed(database) == "unreachable"


@pytest.mark.parametrize("unit", ["write", "bulk_insert", "in part"])
async def test_write_of_unknown_outcome_is_looked_for_on_the_primary(
    routed: Database, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """A replica that lags would say that nothing was written, and its client repeat."""
    dialect: Any = routed.engine.dialect

    def lose(_: object) -> None:
        raise dialect.loaded_dbapi.OperationalError("lost")

    current_watermark.set(None)
    begin = routed.write() if unit == "write" else bulk_insert(routed)
    with pytest.raises((CommitOutcomeUnknown, ZeroDivisionError)):  # noqa: PT012
        async with begin as session:
            await session.execute(text("SELECT 1"))
            if unit == "in part":
                await session.commit()
                raise ZeroDivisionError
            monkeypatch.setattr(dialect, "do_commit", lose)
            monkeypatch.setattr(dialect, "is_disconnect", lambda *_: True)

    found = current_watermark.get()
    assert found
    assert found.written == PRIMARY_ONLY


async def test_position_that_is_not_waited_for_is_looked_for_on_the_primary(
    routed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of a task is up after its COMMIT: its next attempt must find it."""

    def cancel(*_: object) -> Position:
        raise asyncio.CancelledError

    monkeypatch.setattr(router, "commit_position", cancel)
    current_watermark.set(None)
    with pytest.raises(asyncio.CancelledError):
        async with routed.write() as session:
            await session.execute(text("SELECT 1"))

    found = current_watermark.get()
    assert found
    assert found.written == PRIMARY_ONLY


def with_routes(app: FastAPI) -> FastAPI:
    @app.post("/probe")
    async def write(session: Write) -> None:
        await session.execute(text("SELECT 1"))

    @app.post("/nested")
    async def write_in_parts(session: Write) -> None:
        async with session.begin_nested():
            await session.execute(text("SELECT 1"))

    @app.get("/probe")
    async def probe(session: Read) -> int | None:
        return await session.scalar(select(text("1")))

    @app.get("/watermark")
    async def watermark() -> Position:
        found = current_watermark.get()
        return found.position if found else {}

    return app


async def test_write_is_answered_with_its_position(
    settings: Settings, serve: Any
) -> None:
    async with serve(with_routes(main.create_app(with_replica(settings)))) as client:
        written = await client.post("/probe")
        client.cookies.clear()
        unread = await client.get("/probe")
        in_parts = await client.post("/nested")

    position = decode_token(written.headers[HEADER])
    assert position
    # The end of a savepoint is no commit.
    assert decode_token(in_parts.headers[HEADER]).keys() == position.keys()
    cookie = written.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={written.headers[HEADER]}; Max-Age=60; ")
    assert "Secure" not in cookie  # the request came by http
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
async def test_watermark_of_a_request_is_that_of_header_and_cookie(
    app: FastAPI, serve: Any, header: str, cookie: str, position: Position
) -> None:
    async with serve(with_routes(app)) as client:
        headers = {HEADER: header, "Cookie": f"{COOKIE}={cookie}"}
        answer = await client.get("/watermark", headers=headers)

    assert answer.json() == position


async def test_request_does_not_have_the_watermark_of_another(
    app: FastAPI, serve: Any
) -> None:
    async with serve(with_routes(app)) as client:
        await client.get("/watermark", headers={HEADER: "a:7"})

        assert (await client.get("/watermark")).json() == {}


async def test_made_up_token_is_ignored(app: FastAPI, serve: Any) -> None:
    async with serve(with_routes(app)) as client:
        for token in GARBAGE[:-1]:
            headers = {HEADER: token, "Cookie": f"{COOKIE}={token}"}
            assert (await client.get("/probe", headers=headers)).json() == 1


@pytest.mark.parametrize("token", GARBAGE)
def test_garbage_is_no_position(token: str) -> None:
    assert decode_token(token) == {}


@pytest.mark.parametrize(
    "position",
    [
        {"": 50331976},
        {"0": 100, "1": 5},
        {"primary": 1},
        {f"{UUID}.night~run.12": 2**63} | {f"{UUID}.{first}": 1 for first in range(60)},
    ],
    ids=lambda position: f"{len(position)} parts",
)
def test_position_survives_the_way_to_the_client(position: dict[str, int]) -> None:
    assert decode_token(encode_token(position)) == position
    assert has_reached(position, position)
    assert not has_reached({}, position)


def test_position_that_is_too_long_for_a_cookie_leads_to_the_primary() -> None:
    token = encode_token({f"{UUID}.{first}": 1 for first in range(200)})

    assert decode_token(token) == PRIMARY_ONLY


if DIALECT == "mysql" and not REPORTS_LAG:

    @pytest.mark.parametrize(
        ("gtids", "position"),
        [
            (None, {}),
            ("", {}),
            # MariaDB
            ("0-1-100", {"0": 100}),
            ("0-1-100,1-12-7", {"0": 100, "1": 7}),
            # MySQL
            (f"{UUID}:1", {UUID: 1}),
            (f"{UUID}:1-5", {UUID: 5}),
            (f"{UUID.upper()}:1-5", {UUID: 5}),
            (f"{UUID}:7", {f"{UUID}.7": 7}),
            (f"{UUID}:1-5:7-9", {UUID: 5, f"{UUID}.7": 9}),
            (f"{UUID}:1-5,\n{OTHER}:1-77", {UUID: 5, OTHER: 77}),
            (f" {UUID} : 1-5 : 10 ,\n", {UUID: 5, f"{UUID}.10": 10}),
            (
                f"{UUID}:1-5:a_b:1-3:9:c:4,\n{OTHER}:_d:1-2",
                {UUID: 5, f"{UUID}.a~b": 3, f"{UUID}.a~b.9": 9, f"{UUID}.c.4": 4}
                | {f"{OTHER}.~d": 2},
            ),
        ],
    )
    def test_each_interval_of_gtids_has_its_position(
        gtids: str | None, position: Position
    ) -> None:
        found = replay_position(SimpleNamespace(position=gtids))  # type: ignore[arg-type]

        assert found == position
        assert decode_token(encode_token(found)) == position


HOSTS = f"{SCHEMES[0]}://user@localhost:1,127.0.0.1:2/name"


def test_first_of_several_hosts_is_tried_first(settings: Settings) -> None:
    several = settings.load(database_url=HOSTS).server

    assert [each.name for each in (several, *several.others)] == [
        "localhost:1",
        "127.0.0.1:2",
    ]
    assert settings.server.others == ()


def test_replicas_behind_one_pooler_have_names_of_their_own(settings: Settings) -> None:
    """One name for two would be one label of their metrics, and one of them unused."""
    urls = ("pooler:7/one", "pooler:7/two", "other:7/one")
    listed = ",".join(f"{SCHEMES[0]}://user@{each}" for each in urls)

    found = settings.load(database_replica_urls=listed).replicas

    assert [*found] == ["pooler:7/one", "pooler:7/two", "other:7"]


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"database_url": HOSTS.replace(":2", ":x")}, "its port is no number to 65535"),
        ({"database_url": HOSTS.replace("127", "10")}, "names this machine and others"),
        (
            {"database_replica_urls": "http://user:secret@replica/name"},
            "DATABASE_REPLICA_URLS asks for http, but this service uses",
        ),
    ],
)
def test_wrong_servers_are_refused_in_one_sentence(
    variables: dict[str, Any], sentence: str
) -> None:
    with pytest.raises((ValidationError, SystemExit), match=sentence) as error:
        Settings(**({"database_url": HOSTS} | variables))

    assert "secret" not in str(error.value)


async def test_read_may_use_the_replicas_that_have_its_writes(
    routed: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each that was healthy, and the primary: then one of them takes the read."""
    router = router_of(routed)
    (replica,) = router.replicas
    await probed(routed)
    position, ahead = replica.position or {"": 1}, {"": 10**18}
    monkeypatch.setattr(replica, "position", position)
    monkeypatch.setattr(replica, "probe", lambda: None)

    def candidates(reason: str, ready_until: float, goal: Position) -> list[bool]:
        replica.unhealthy_reason, replica.ready_until = reason, ready_until
        current_watermark.set(ReadWatermark(goal))
        return [engine is replica.engine for engine in router.candidates()]

    assert candidates("", float("inf"), position) == [True]
    assert candidates("", float("inf"), ahead) == [True, False]
    assert candidates("", 0, position) == [True, False]
    assert candidates("lag", 0, position) == [False]
