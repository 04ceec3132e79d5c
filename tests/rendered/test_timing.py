"""The ticker goes on after an error or a pause, and ends when it is not used."""

import asyncio
import socket
import time
from typing import Any

import pytest
from shop.db.engine import timing
from shop.db.engine.timing import Ticker


@pytest.fixture
def errors() -> list[Any]:
    """What the event loop is given that no caller can catch."""
    return []


async def test_ticker_goes_on_after_an_error(errors: list[Any]) -> None:
    ticks = 0
    ticked = asyncio.Event()

    def tick() -> bool:
        nonlocal ticks
        ticks += 1
        if ticks == 1:
            raise OSError("no space left")
        ticked.set()
        return False

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context["exception"]))
    try:
        Ticker(0.01, tick).start()
        async with asyncio.timeout(10):
            await ticked.wait()
    finally:
        loop.set_exception_handler(None)

    assert [str(error) for error in errors] == ["no space left"]


async def test_ticker_rests_for_as_long_after_each_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timing, "REST_SECONDS", 0.025)
    ticks = 0

    def tick() -> bool:
        nonlocal ticks
        ticks += 1
        return False

    ticker = Ticker(0.01, tick)
    for _ in range(2):
        before = ticks
        ticker.start()
        async with asyncio.timeout(10):
            while ticker.loop:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert ticks == before + 3


async def test_answers_are_read_after_a_pause_of_the_process() -> None:
    """Else the watchdog would close the connections of a server that has answered."""
    events = []

    def tick() -> bool:
        events.append("tick")
        return True

    server, client = socket.socketpair()
    with server, client:
        reader, writer = await asyncio.open_connection(sock=client)

        async def receive() -> None:
            await reader.readexactly(6)
            events.append("answer")

        receiving = asyncio.create_task(receive())
        await asyncio.sleep(0)
        ticker = Ticker(0.05, tick)
        ticker.start()
        server.send(b"answer")
        time.sleep(0.3)  # noqa: ASYNC251
        await receiving
        ticker.stop()
        writer.close()

    assert events[0] == "answer"


async def test_ticker_of_a_process_that_is_always_late_ticks() -> None:
    ticked = asyncio.Event()
    ticker = Ticker(0.01, lambda: bool(ticked.set()))
    ticker.start()
    async with asyncio.timeout(10):
        while not ticked.is_set():
            time.sleep(0.05)  # noqa: ASYNC251
            await asyncio.sleep(0)
