"""The socket of a driver's connection: shut down, named, kept alive; its cursors."""

import os
import select
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sqlalchemy.exc import DBAPIError

Fileno = Callable[[Any], int]

# Linux sees the end behind bytes that are still to be read. Everywhere: a reset.
PEER_CLOSED = getattr(select, "POLLRDHUP", 0)

KEEPALIVE = {
    "TCP_KEEPIDLE": 60,  # seconds
    "TCP_KEEPINTVL": 10,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,  # milliseconds
}


class LostBeforeCommit(DBAPIError):
    """The connection was closed before COMMIT was sent: nothing was changed."""

    is_before_commit = True


def raise_lost(connection: Any) -> None:
    """In place of COMMIT, on a connection that the server has closed."""
    cause: Exception = ConnectionError("connection closed before COMMIT")
    try:
        # COMMIT is not sent. By the error of what changes nothing the driver says why.
        connection.cursor().execute("SELECT 1")
    except Exception as error:
        cause = error
    raise LostBeforeCommit(None, None, cause, connection_invalidated=True)


def shut_down(fileno: Fileno, connection: Any) -> None:
    """End every wait for the server, by the socket of a driver's connection."""
    # It may be closed already.
    with suppress(Exception), _duplicate(fileno, connection) as tcp:
        tcp.shutdown(socket.SHUT_RDWR)


def is_closed(fileno: Fileno, connection: Any) -> bool:
    """Whether the other end has closed it, or this one: what the system knows now."""
    poll = select.poll()
    try:
        poll.register(fileno(connection), PEER_CLOSED)
        return bool(poll.poll(0))
    except Exception:  # the driver has closed it
        return True


def peer_address(fileno: Fileno, connection: Any) -> str:
    """The other end: host:port, or the path of a socket; empty once it is closed."""
    try:
        with _duplicate(fileno, connection) as tcp:
            address = tcp.getpeername()
    except Exception:
        return ""
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def keep_alive(fileno: Fileno, connection: Any) -> None:
    """Let the kernel probe an idle connection.

    Load balancers and firewalls drop an idle one silently after 240 to 600 s. First
    probe after 60 s; a probe or data without an answer for 10 s end the connection.
    """
    # One that is closed already fails at its first use.
    with suppress(OSError), _duplicate(fileno, connection) as tcp:
        if tcp.family == socket.AF_UNIX:
            return
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if option := getattr(socket, name, None):  # not on every platform
                tcp.setsockopt(socket.IPPROTO_TCP, option, value)


def _duplicate(fileno: Fileno, connection: Any) -> socket.socket:
    return socket.socket(fileno=os.dup(fileno(connection)))


class BoundedCursor:
    """A cursor of the server: each fetch is bounded as a statement is."""

    def __init__(
        self, cursor: Any, connection: Any, within: Callable[..., Any]
    ) -> None:
        self._cursor = cursor
        self._connection = connection
        self._within = within

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    def fetchone(self) -> Any:
        return self._fetch(self._cursor.fetchone)

    def fetchmany(self, size: int | None = None) -> Any:
        return self._fetch(self._cursor.fetchmany, size)

    def fetchall(self) -> Any:
        return self._fetch(self._cursor.fetchall)

    def _fetch(self, fetch: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._within(fetch, *args)
        except Exception as error:
            # Some drivers leave the error of a fetch untranslated: no DBAPIError.
            self._connection.dbapi_connection._handle_exception(error)
            raise
