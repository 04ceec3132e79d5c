"""The socket of a driver's connection: shut, named, and kept alive."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

KEEPALIVE = {
    "TCP_KEEPIDLE": 60,  # seconds
    "TCP_KEEPINTVL": 10,  # seconds
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 10_000,  # milliseconds
}


def cut(fileno: Callable[[Any], int], connection: Any) -> None:
    """Shut the socket of a driver's connection: each wait for its server ends."""
    # It may be closed already.
    with suppress(Exception), socket_of(fileno, connection) as tcp:
        tcp.shutdown(socket.SHUT_RDWR)


def address_of(fileno: Callable[[Any], int], connection: Any) -> str:
    """The other end of a connection: host:port, or the path of a socket."""
    with socket_of(fileno, connection.driver_connection) as tcp:
        address = tcp.getpeername()
    return address if isinstance(address, str) else f"{address[0]}:{address[1]}"


def socket_of(fileno: Callable[[Any], int], connection: Any) -> socket.socket:
    """A second one for the same connection, to be closed after its use."""
    return socket.socket(fileno=os.dup(fileno(connection)))


def keep_alive(tcp: socket.socket) -> None:
    """Let the kernel probe an idle connection.

    Load balancers and firewalls forget a silent one after 240 to 600 s, and tell
    nobody. First probe after 60 s, dead after 3 at 10 s; unanswered data after 10 s.
    """
    if tcp.family == socket.AF_UNIX:
        return
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if option := getattr(socket, name, None):  # not every platform has them all
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)
