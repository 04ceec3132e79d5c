"""A service behind a real proxy with TLS, and what a client can make up."""

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import make_url

from tests.support.edge import haproxy
from tests.support.rendering import Answers
from tests.support.servers import Server
from tests.support.service import ORDER, Running, Service

pytestmark = pytest.mark.boot

HSTS = "strict-transport-security"


@dataclass(frozen=True)
class Behind:
    """The service, and two ways to it: over the proxy, and from a stranger."""

    running: Running
    proxy: httpx.Client
    stranger: httpx.Client


@pytest.fixture(scope="class")
def behind(
    rendered: Callable[[Answers], Service],
    server_of: Callable[[str], Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Behind]:
    folder = tmp_path_factory.mktemp("edge")
    shop = rendered({"driver": "asyncpg", "with_replicas": True})
    url = server_of("asyncpg").database("edge")
    variables = {"DATABASE_URL": url, "ALLOWED_HOSTS": "localhost,127.0.0.1"}
    variables["DATABASE_REPLICA_URLS"] = url
    shop.migrate(**variables)
    with shop.running(**variables) as running:
        service = running.client.base_url
        # Not 127.0.0.1, from which the proxy comes.
        elsewhere = httpx.HTTPTransport(local_address="127.0.0.2")
        with (
            haproxy(folder, int(service.port or 0)) as (url, authority),
            httpx.Client(
                base_url=url, verify=ssl.create_default_context(cafile=authority)
            ) as proxy,
            httpx.Client(base_url=service, transport=elsewhere) as stranger,
        ):
            yield Behind(running, proxy, stranger)


class TestEdge:
    def test_client_of_the_proxy_is_encrypted(self, behind: Behind) -> None:
        forged = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "10.9.8.7"}
        created = behind.proxy.post("/orders", json=ORDER, headers=forged)
        slash = behind.proxy.get("/orders/")

        assert created.status_code == 201
        assert HSTS in created.headers
        assert "; Secure" in created.headers["set-cookie"]
        assert (slash.status_code, "location" in slash.headers) == (404, False)

    def test_stranger_is_not_taken_for_the_proxy(self, behind: Behind) -> None:
        forged = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.9.8.7"}
        created = behind.stranger.post("/orders", json=ORDER, headers=forged)

        assert created.status_code == 201
        assert HSTS not in created.headers
        assert "Secure" not in created.headers["set-cookie"]

    def test_forged_host_is_rejected(self, behind: Behind) -> None:
        answer = behind.proxy.get("/orders", headers={"Host": "evil.example"})
        other = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}

        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert "evil" not in answer.text
        assert behind.proxy.get("/orders", headers=other).status_code == 200

    def test_docs_are_not_there(self, behind: Behind) -> None:
        paths = ("/docs", "/redoc", "/openapi.json")

        assert {behind.proxy.get(path).status_code for path in paths} == {404}

    def test_long_headers_are_refused_by_the_proxy(self, behind: Behind) -> None:
        long = {"X-Long": "x" * 200_000}
        answer = behind.proxy.get("/livez", headers=long)

        assert answer.status_code in (400, 431)
        # The limit is that of the proxy: here the headers are taken, and harm nothing.
        assert behind.stranger.get("/livez", headers=long).status_code == 200

    def test_slow_bodies_keep_neither_the_service_nor_the_database_busy(
        self, behind: Behind, server_of: Callable[[str], Server]
    ) -> None:
        url = behind.running.client.base_url
        head = b"POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{"
        slow = [socket.create_connection((url.host, url.port)) for _ in range(100)]
        for each in slow:
            each.sendall(head)
        try:
            answers = [behind.proxy.get("/orders") for _ in range(20)]
        finally:
            for each in slow:
                each.close()

        assert {answer.status_code for answer in answers} == {200}
        name = make_url(server_of("asyncpg").verified_of("edge")).database
        assert len(server_of("asyncpg").sessions(str(name))) < len(slow)
