"""The proxy in each of its modes, with a server that echoes."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.proxy import Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(ConnectionResetError):
            while data := self.request.recv(65_536):
                self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            with Proxy("127.0.0.1", server.server_address[1]) as proxy:
                yield proxy
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def client(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        yield connection


def hear(connection: socket.socket, length: int) -> bytes:
    with connection.makefile("rb", buffering=0) as stream:
        heard = b""
        while len(heard) < length and (data := stream.read(length - len(heard))):
            heard += data
    return heard


def say(connection: socket.socket, text: bytes) -> bytes:
    """Send it and hear as much."""
    connection.sendall(text)
    return hear(connection, len(text))


def is_silent(connection: socket.socket) -> bool:
    """Neither bytes nor an end come within a tenth of a second."""
    connection.settimeout(0.1)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        connection.settimeout(5)
    return False


def test_everything_passes(proxy: Proxy) -> None:
    text = bytes(range(256)) * 4_000
    with client(proxy) as one, client(proxy) as other:
        threading.Thread(target=one.sendall, args=(text,)).start()

        assert say(other, b"hello") == b"hello"
        assert hear(one, len(text)) == text


def test_frozen_proxy_is_silent_and_forwards_later_what_has_waited(
    proxy: Proxy,
) -> None:
    with client(proxy) as old:
        assert say(old, b"one") == b"one"
        proxy.freeze()
        with client(proxy) as new:
            old.sendall(b"two")
            new.sendall(b"three")
            assert is_silent(old)
            assert is_silent(new)
            proxy.heal()

            assert hear(old, 3) == b"two"
            assert hear(new, 5) == b"three"


def test_refused_is_who_comes_now_and_nobody_else(proxy: Proxy) -> None:
    with client(proxy) as old:
        assert say(old, b"one") == b"one"
        proxy.refuse()
        with pytest.raises(ConnectionRefusedError), client(proxy):
            pass
        assert say(old, b"two") == b"two"
        proxy.heal()
        with client(proxy) as new:
            assert say(new, b"three") == b"three"


@pytest.mark.parametrize("frozen", [False, True])
def test_broken_connections_are_reset(proxy: Proxy, frozen: bool) -> None:  # noqa: FBT001
    with client(proxy) as old:
        assert say(old, b"one") == b"one"
        if frozen:
            proxy.freeze()
        proxy.break_connections()
        with pytest.raises(ConnectionResetError):
            old.recv(1)
    proxy.heal()
    with client(proxy) as new:
        assert say(new, b"two") == b"two"


def test_answers_are_dropped_after_the_match_and_on_its_connection_alone(
    proxy: Proxy,
) -> None:
    with client(proxy) as one, client(proxy) as other:
        assert say(one, b"BEGIN") == b"BEGIN"
        proxy.drop_after(rb"\bCOMMIT\b")
        assert say(one, b"READ COMMITTED") == b"READ COMMITTED"
        one.sendall(b"COMMIT;")

        assert proxy.dropping.wait(5)
        assert say(other, b"COMMIT") == b"COMMIT"
        proxy.heal()
        assert is_silent(one)


def test_round_trip_is_counted_when_the_client_speaks_again(proxy: Proxy) -> None:
    with client(proxy) as one, client(proxy) as other:
        for text in (b"a", b"b", b"c"):
            assert say(one, text) == text
        assert say(other, b"d") == b"d"
        assert proxy.round_trips == 4
        proxy.reset()
        one.sendall(b"e")
        assert say(one, b"f") == b"e"

        assert proxy.round_trips in (1, 2), "one unless they came apart"


def test_commits_are_counted(proxy: Proxy) -> None:
    with client(proxy) as one:
        for text in (b"COMMIT;", b"READ COMMITTED", b"COMMIT"):
            assert say(one, text) == text

    assert proxy.commits == 2


def test_server_that_is_gone_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy, client(proxy) as connection:
        assert hear(connection, 1) == b""


def test_end_of_a_connection_waits_while_frozen(proxy: Proxy) -> None:
    """As with a stopped server, which learns of it when it goes on."""
    with client(proxy) as connection:
        assert say(connection, b"one") == b"one"
        proxy.freeze()
        connection.shutdown(socket.SHUT_WR)
        assert is_silent(connection)
        proxy.heal()

        assert hear(connection, 1) == b""


def test_answers_are_delayed_and_come_in_order(proxy: Proxy) -> None:
    with client(proxy) as connection:
        proxy.delay_answers(2)
        started = time.monotonic()
        for text in (b"a", b"b", b"c", b"d", b"e"):
            connection.sendall(text)
            time.sleep(0.2)  # or they would be one answer

        assert hear(connection, 5) == b"abcde"
        assert 2 <= time.monotonic() - started < 8, "in turn they take 10 s"
        proxy.delay_answers(0)
        assert say(connection, b"f") == b"f"
