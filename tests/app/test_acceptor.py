"""A listening socket: connections are opened as they come, and where none can be it waits instead of asking on and on."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable

import pytest

from app import acceptor
from app.acceptor import Acceptor
from app.handover import listen
from tests.app.asgi import until


class Hello(asyncio.Protocol):
    """Greets and closes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


class Broken:
    """A listening socket whose `accept` fails while there is a fault."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.fault: int | None = None
        self.asked = 0
        self.fileno: Callable[[], int] = listener.fileno
        self.close: Callable[[], None] = listener.close

    def accept(self) -> tuple[socket.socket, object]:
        self.asked += 1
        if self.fault is not None:
            raise OSError(self.fault, os.strerror(self.fault))
        return self._listener.accept()


async def greeted(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_connections_are_opened_as_they_come_and_those_that_wait_at_the_end_too() -> None:
    (listener,) = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    made = Acceptor(listener, Hello)
    assert await asyncio.gather(*(greeted(port) for _ in range(100))) == [b"hello"] * 100
    with socket.create_connection(("127.0.0.1", port), 5) as last:  # the loop has no turn before the end
        made.close()
        made.close()
        await made.wait_closed()
        await asyncio.sleep(0.01)
        assert last.recv(10) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        await greeted(port)


@pytest.mark.parametrize("fault", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_without_descriptors_it_waits(
    fault: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.2)
    (listener,) = listen("127.0.0.1", 0)
    broken = Broken(listener)
    made = Acceptor(broken, Hello)  # type: ignore[arg-type]
    broken.fault = fault
    with caplog.at_level(logging.ERROR):
        waiting = asyncio.create_task(greeted(listener.getsockname()[1]))
        await until(lambda: broken.asked == 1)
        await asyncio.sleep(0.1)
        assert broken.asked == 1
        broken.fault = None
        assert await waiting == b"hello"
    assert caplog.messages == [f"no connection can be accepted: {os.strerror(fault)}"]
    made.close()


async def test_closed_in_a_pause_it_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "PAUSE_S", 0.02)
    (listener,) = listen("127.0.0.1", 0)
    broken = Broken(listener)
    made = Acceptor(broken, Hello)  # type: ignore[arg-type]
    broken.fault = errno.EMFILE
    with socket.create_connection(listener.getsockname(), 5):
        await until(lambda: broken.asked == 1)
        made.close()
        asked = broken.asked
        await asyncio.sleep(0.1)
        assert broken.asked == asked
