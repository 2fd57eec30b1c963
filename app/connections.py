"""Every open connection of a process, by what it waits for, so that there is always room for the next client.

It knows nothing of HTTP: a connection tells what it waits for, and can be cut.
"""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from enum import StrEnum
from typing import Protocol

from app.metrics import Metrics

TELLS_GONE = hasattr(socket, "TCP_INFO")  # whether `is_gone` can know: on Linux
_CLOSED = 7  # TCP_CLOSE in Linux's include/net/tcp_states.h, as the first byte of TCP_INFO tells it
FRESH_S = 0.5  # a connection may be idle for so long before it is worth less than others


def limit_silence(transport: asyncio.Transport, seconds: float) -> None:
    """Have the kernel end a connection whose other side takes nothing of what was sent for so long (tcp(7); Linux only)."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with suppress(OSError):  # of another family, or gone already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1000, int(seconds * 1000)))


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether the other side reset the connection. For one that is not read from: else the loop tells."""
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is None or not TELLS_GONE:
        return False
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _CLOSED
    except OSError:
        return False


class Wait(StrEnum):
    """What a connection waits for. All but those with work under way give way to new ones."""

    IDLE = "idle"  # its client to begin or end a request's head
    BODY = "body"  # its client to send the body
    READER = "reader"  # its client to take the answer
    WORK = "work"  # us


class Connection(Protocol):
    """What is counted."""

    wait: Wait | None  # None where it is not, or no longer, counted; written here alone

    def cut(self) -> None:
        """Close the connection at once, whatever is under way."""


class Connections:
    """The connections of one process: `limit` at most.

    One too many closes the one that has waited longest for its client: an idle one if there is, but one that began to be idle
    just now may be about to ask, so it comes no sooner than any other. Thus any number of silent clients keeps nobody out.
    Only while all of them have work under way is the new one refused.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit = limit
        self._metrics = metrics
        # Since when, on the monotonic clock; each is in that order.
        self._by_wait: dict[Wait, dict[Connection, float]] = {wait: {} for wait in Wait}
        self._count = 0
        metrics.connections_limit.set(limit)

    def __len__(self) -> int:
        return self._count

    def open(self, connection: Connection) -> bool:
        """Count a new connection, which is idle so far, and make room for it. False where there is none: it is to be refused."""
        while self._count >= self.limit and (least := self._least()) is not None:
            if least.wait is not None:
                self._metrics.connections_cut.labels(least.wait.value).inc()
            self.close(least)
            least.cut()
        room = self._count < self.limit
        if not room:
            self._metrics.connections_cut.labels("refused").inc()
        self._by_wait[Wait.IDLE][connection] = time.monotonic()
        connection.wait = Wait.IDLE
        self._count += 1
        self._metrics.connections.inc()
        return room

    def waits(self, connection: Connection, wait: Wait) -> None:
        """Note what a connection waits for from now on."""
        before = connection.wait
        if before is not None and before is not wait:
            del self._by_wait[before][connection]
            self._by_wait[wait][connection] = time.monotonic()
            connection.wait = wait

    def close(self, connection: Connection) -> None:
        """Count a connection no more, if it still is."""
        if connection.wait is not None:
            del self._by_wait[connection.wait][connection]
            connection.wait = None
            self._count -= 1
            self._metrics.connections.dec()

    def refused(self, reason: str) -> None:
        """Count a request that was refused before it came to the application."""
        self._metrics.rejected.labels(reason).inc()

    def _least(self) -> Connection | None:
        """The connection that is closed first, if any may be."""
        oldest = [next(iter(self._by_wait[wait].items()), None) for wait in (Wait.IDLE, Wait.BODY, Wait.READER)]
        idle = oldest[0]
        if idle is not None and time.monotonic() - idle[1] >= FRESH_S:
            return idle[0]
        return min(filter(None, oldest), key=lambda each: each[1], default=(None, 0.0))[0]
