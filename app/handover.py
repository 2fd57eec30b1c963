"""What passes between the process that accepts connections and those that serve them: an order at the start, one word when
ready, and the connections themselves, over a Unix socket (SCM_RIGHTS, unix(7)).

A socket that several processes accept from wakes them unevenly: of two connections one process often takes both, and a
kept-alive connection stays where it went. In turn they are even, and none goes to a process that is dead or still loading.
It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

logger = logging.getLogger("sknet.workers")

DRAIN = signal.SIGUSR1  # to a worker: the end is near, so say that you are not ready, and go on
READY = b"ready"  # what a worker says once its model serves; anything else is the reason why it cannot
BACKLOG = 2048  # connections the kernel holds while nobody takes them, as uvicorn has it
AT_ONCE = 64  # connections accepted before signals and other work have their turn
PAUSE_S = 1.0  # before accepting again where the process is out of file descriptors or memory


def listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket on each address of a host; port 0 takes a free one, the same for all of them.

    Raises:
        OSError: there is no such address, or it cannot be listened on.
    """
    made: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    ):
        try:
            made.append(_bound(family, kind, protocol, (address[0], made[0].getsockname()[1] if made else port, *address[2:])))
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # IPv6 that is switched off is no failure
                for each in made:
                    each.close()
                raise
            failure = error
    if failure is not None and not made:
        raise failure
    return made


def _bound(family: int, kind: int, protocol: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told: which one it is, its ends of the channels, where counts are kept, the flags of the command line,
    and what the others serve by now.
    """

    slot: int
    channel: int  # file descriptor
    metrics: str
    flags: dict[str, Any]
    control: int | None = None  # file descriptor of the line that `app.control` speaks on
    checkpoint: str | None = None  # a reference; None: the one of the settings
    loaded: bool = True

    def dump(self) -> str:
        """As the one argument of the worker's program."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Order:
        """What `dump` wrote."""
        return cls(**json.loads(text))


@dataclass(slots=True, eq=False)
class Taker:
    """A process that serves: its end of the channel, and whether its model is ready."""

    channel: socket.socket
    ready: bool = False


class Handover:
    """Gives each new connection to the next taker in turn: to those that are ready, or if none is, to any.

    While there is no taker at all, connections wait in the kernel.
    """

    def __init__(self, listeners: Sequence[socket.socket]) -> None:
        self._listeners = listeners
        self._takers: list[Taker] = []
        self._accepting = False

    def add(self, taker: Taker) -> None:
        """Give it connections from now on."""
        self._takers.append(taker)
        self._accept(on=True)

    def remove(self, taker: Taker) -> None:
        """Give it none any more."""
        if taker in self._takers:
            self._takers.remove(taker)
        self._accept(on=bool(self._takers))

    def close(self) -> None:
        """Listen no more. Connections that already wait to be accepted are given away first."""
        for listener in self._listeners if self._accepting else ():
            self._arrived(listener)
        self._takers.clear()
        self._accept(on=False)
        for listener in self._listeners:
            listener.close()

    def _accept(self, *, on: bool) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners if on != self._accepting else ():
            if on:
                loop.add_reader(listener, self._arrived, listener)
            else:
                loop.remove_reader(listener)
        self._accepting = on

    def _arrived(self, listener: socket.socket) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.error("no connection can be accepted: %s", error.strerror)
                self._accept(on=False)
                asyncio.get_running_loop().call_later(PAUSE_S, lambda: self._accept(on=bool(self._takers)))
                return
            with connection:  # a copy of it is on its way
                self._give(connection)

    def _give(self, connection: socket.socket) -> None:
        for taker in sorted(self._takers, key=lambda taker: not taker.ready):  # stable: in turn among those that are ready
            try:
                socket.send_fds(taker.channel, [b"\0"], [connection.fileno()])
            except OSError:
                continue  # it is gone or so far behind that its channel is full: the next one
            self._takers.remove(taker)
            self._takers.append(taker)
            return


def take(channel: socket.socket) -> socket.socket | None:
    """The next connection that was handed over; None when whoever gave them is gone.

    Raises:
        BlockingIOError: none is waiting.
        OSError: one is lost, because this process has too many open files.
    """
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    except ConnectionResetError:
        return None
    if not data:
        return None
    if not descriptors:
        raise OSError(errno.EMFILE, "too many open files")
    connection = socket.socket(fileno=descriptors[0])
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as servers that accept by themselves do
    return connection
