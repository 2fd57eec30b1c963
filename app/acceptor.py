"""A listening socket of this process, whose connections are opened as they come.

The loop's own server is faster by some microseconds a connection, but where no descriptor is left it asks for the next
connection again and again, and keeps a processor busy with that.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from app.handover import AT_ONCE, PAUSE_S

logger = logging.getLogger("sknet.service")


class Acceptor:
    """Accepts from its making until it is closed; closed and waited for as asyncio's servers are."""

    def __init__(self, listener: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._listener = listener
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[Any]] = set()
        self._paused: asyncio.TimerHandle | None = None
        self._closed = False
        self._listen()

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """Where it listens; none once it is closed."""
        return () if self._closed else (self._listener,)

    def close(self) -> None:
        """Listen no more. What already waits to be accepted is, as far as there is room."""
        if self._closed:
            return
        self._arrived()
        self._closed = True
        if self._paused is not None:
            self._paused.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        """Until every connection that was accepted is open."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _listen(self) -> None:
        self._paused = None
        self._loop.add_reader(self._listener, self._arrived)

    def _arrived(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection can be accepted: %s", error.strerror)
                self._loop.remove_reader(self._listener)
                self._paused = self._loop.call_later(PAUSE_S, self._listen)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)
