"""Clients of a WebSocket, whose ends differ. Argument: its URL.

The program prints what each client has received, and the number of connections that
are checked out while it is there.
"""

import json
import socket
import sys
from urllib.request import urlopen

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

URL = sys.argv[1]
LIMIT = 1_000_000  # MAX_BODY_BYTES


def checked_out():
    with urlopen(f"{URL}/checked-out") as answer:  # noqa: S310
        return json.load(answer)


def close(client):
    client.close()
    return client.close_code


def leave(client):
    """Without a close frame, as a process that has ended."""
    client.socket.shutdown(socket.SHUT_RDWR)


def fail(client):
    return code_after(client, "raise")


def exceed(client):
    """By one byte."""
    return code_after(client, "x" * (LIMIT + 1))


def code_after(client, message):
    client.send(message)
    try:
        client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code
    return None


found = {}
for end in (close, leave, fail, exceed):
    with connect(URL.replace("http", "ws") + "/echo") as client:
        client.send(end.__name__)
        assert client.recv() == end.__name__
        found[end.__name__] = [checked_out(), end(client)]
print(json.dumps(found))
