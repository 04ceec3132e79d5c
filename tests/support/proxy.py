"""A TCP proxy between a service and its server, with the faults of a network.

The proxy has a thread and a loop of its own, and works while its caller waits. The
bytes that are looked for and counted must not be encrypted: no protocol is spoken.
"""

import asyncio
import re
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

# What a server has said, each with the time of the loop when it shall arrive.
Answers = asyncio.Queue[tuple[float, bytes]]


COMMIT = re.compile(rb"\bCOMMIT\b")


class Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client: asyncio.StreamWriter) -> None:
        self.ends = [client]
        self.server_spoke_last = True
        self.is_deaf = False


class Proxy:
    """Listens on 127.0.0.1 and `port` for as long as the context lasts."""

    def __init__(self, host: str, port: int) -> None:
        # Kept while the proxy refuses, so that no other process gets the port.
        self._place = socket.socket()
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self.port: int = self._place.getsockname()[1]
        self.round_trips = 0
        self.dropping = threading.Event()  # the bytes of drop_after() have gone by
        self.commits = 0  # how often a client has asked for one
        self._server, self._pattern = (host, port), b""
        self._links: dict[asyncio.Task[None], Link] = {}
        self._listener: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._delay_seconds = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        self.break_connections()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._place.close()

    def heal(self) -> None:
        """Forward everything, also what has waited, and without delay from now on."""
        self._delay_seconds = 0.0
        self._do(self._switch(listens=True, flows=True))

    def freeze(self) -> None:
        """Accept connections and bytes, forward nothing, close nothing."""
        self._do(self._switch(listens=True, flows=False))

    def refuse(self) -> None:
        """Take no new connections; the open ones go on."""
        self._do(self._switch(listens=False, flows=True))

    def lead_to(self, host: str, port: int) -> None:
        """Take new connections elsewhere, as a name does whose address has changed."""
        self._server = (host, port)

    def break_connections(self) -> None:
        """Reset the open ones, as a server that crashes or a firewall does."""
        self._do(self._break())

    def delay_answers(self, seconds: float) -> None:
        """Let arrive so much later what the server says from now on."""
        self._delay_seconds = seconds

    def drop_after(self, pattern: bytes) -> None:
        """Forward the next match, and nothing that its connection answers ever."""
        self.dropping.clear()
        self._pattern = pattern

    def reset(self) -> None:
        """Count from zero: a round trip is a client that speaks after its server."""
        self.round_trips = 0

    def _do(self, action: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(action, self._loop).result(timeout=10)

    async def _switch(self, *, listens: bool, flows: bool) -> None:
        if listens and not self._listener:
            address = ("127.0.0.1", self.port)
            self._listener = await asyncio.start_server(self._serve, *address)
        elif self._listener and not listens:
            self._listener.close()
            self._listener = None
        self._flows.set() if flows else self._flows.clear()

    async def _break(self) -> None:
        abruptly = struct.pack("ii", 1, 0)  # linger for 0 s: close at once, with RST
        for task, link in self._links.items():
            for end in link.ends:
                tcp = end.get_extra_info("socket")
                with suppress(OSError):  # it is closed already
                    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abruptly)
                end.transport.abort()
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _serve(
        self, requests: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        task: Any = asyncio.current_task()
        link = self._links[task] = Link(client)
        try:
            await self._flows.wait()
            source, server = await asyncio.open_connection(*self._server)
            link.ends.append(server)
            answers = Answers(maxsize=100)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._forward_requests(requests, server, link))
                ways.create_task(self._hear_answers(source, answers))
                ways.create_task(self._forward_answers(answers, client, link))
        except* (OSError, asyncio.CancelledError):
            pass  # no server, one end is broken, or both shall be
        finally:
            del self._links[task]
            for end in link.ends:
                end.close()

    async def _forward_requests(
        self, source: asyncio.StreamReader, server: asyncio.StreamWriter, link: Link
    ) -> None:
        while data := await self._next(source):
            self.round_trips += link.server_spoke_last
            link.server_spoke_last = False
            self.commits += len(COMMIT.findall(data))
            if self._pattern and re.search(self._pattern, data):
                link.is_deaf, self._pattern = True, b""
                self.dropping.set()
            server.write(data)
            await server.drain()
        server.close()

    async def _hear_answers(
        self, source: asyncio.StreamReader, answers: Answers
    ) -> None:
        heard = True
        while heard:
            data = await self._next(source)
            await answers.put((self._loop.time() + self._delay_seconds, data))
            heard = bool(data)

    async def _forward_answers(
        self, answers: Answers, client: asyncio.StreamWriter, link: Link
    ) -> None:
        while data := await self._due(answers):
            link.server_spoke_last = True
            if not link.is_deaf:
                client.write(data)
                await client.drain()
        if not link.is_deaf:
            client.close()

    async def _due(self, answers: Answers) -> bytes:
        due, data = await answers.get()
        await asyncio.sleep(due - self._loop.time())
        await self._flows.wait()
        return data

    async def _next(self, source: asyncio.StreamReader) -> bytes:
        """Bytes, or none at the end; either only when it gets through."""
        data = b""
        with suppress(OSError):
            data = await source.read(65_536)
        await self._flows.wait()
        return data
