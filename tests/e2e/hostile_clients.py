"""Everything hostile that one can do with a connection, as data: the bytes that are sent, and what must come back.

The short tests and the long script (`python -m benchmarks.soak.clients`) send the same.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.bad_inputs import jpeg
from tests.e2e.server import Server

GOOD = jpeg()
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def head(*lines: bytes, path: bytes = b"/classify", media: bytes = b"image/jpeg", version: bytes = b"1.1") -> bytes:
    """The head of a POST with these further header lines."""
    first = (b"POST %b HTTP/%b" % (path, version), b"Host: x", b"Content-Type: " + media)
    return b"\r\n".join((*first, *lines, b"", b""))


def length(count: int) -> bytes:
    """A Content-Length line."""
    return b"Content-Length: %d" % count


CHUNKED = b"Transfer-Encoding: chunked"
# So much that no kernel takes it for a client that does not read.
DEAF = b"GET /static/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 16
POST = head(length(len(GOOD))) + GOOD
FORM = b"multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'


@dataclass(frozen=True)
class Attack:
    """What is sent on one connection at once, and the statuses of the answers, of which the last must say that it closes.

    With `closed=False` the connection is in order, and stays.
    """

    name: str
    sent: bytes
    statuses: tuple[int, ...]
    half_close: bool = False  # the client ends its side behind what it sent
    closed: bool = True


def _form(body: bytes) -> bytes:
    return head(length(len(body)), media=FORM) + body


# The limits that these were made for: see `LIMITS`.
ATTACKS = (
    # in order, if odd
    Attack("half-closed behind a request", POST, (100, 200), half_close=True),
    Attack("half-closed behind three", GET + POST + GET, (200, 100, 200, 200), half_close=True),
    Attack("half-closed behind a garbled one", POST + b"\x00\r\n\r\n", (100, 200), half_close=True),
    Attack("HTTP/1.0", b"GET /livez HTTP/1.0\r\n\r\n", (200,)),
    Attack("HTTP/1.0 that expects 100", head(length(len(GOOD)), b"Expect: 100-continue", version=b"1.0") + GOOD, (200,)),
    Attack("expects 100, and sends at once", head(length(len(GOOD)), b"Expect: 100-continue") + GOOD, (100, 200), closed=False),
    Attack("expects 100, too large", head(length(10**9), b"Expect: 100-continue"), (413,)),
    Attack("expects 100, no such route", head(length(10), b"Expect: 100-continue", path=b"/nope"), (404,)),
    Attack("expects 100, wrong media type", head(length(10), b"Expect: 100-continue", media=b"text/plain"), (415,)),
    Attack("17 requests at once", GET * 17, (200,) * 17, closed=False),
    Attack("an address with a host", b"GET http://y/livez HTTP/1.1\r\nHost: x\r\n\r\n", (200,), closed=False),
    Attack("a method that is known, but not here", b"PROPFIND /livez HTTP/1.1\r\nHost: x\r\n\r\n", (405,), closed=False),
    # lengths
    Attack("Content-Length and Transfer-Encoding", head(length(5), CHUNKED) + b"0\r\n\r\n", (400,)),
    Attack("Transfer-Encoding and Content-Length", head(CHUNKED, length(5)) + b"0\r\n\r\n", (400,)),
    Attack("two lengths", head(length(5), length(6)) + b"abcdef", (400,)),
    Attack("one length twice", head(length(5), length(5)) + b"abcde", (400,)),
    *(
        Attack(f"a length of {text.decode()!r}", head(b"Content-Length: " + text) + b"abcde", (400,))
        for text in (b"", b"-5", b"+5", b"0x5", b"5, 5", b"5 5", b"9" * 30)
    ),
    Attack("a length of 2^64 - 1", head(length(2**64 - 1)), (413,)),
    Attack("a length behind a space", head(b"Content-Length : 5") + b"abcde", (400,)),
    Attack("an unknown coding", head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", (400,)),
    Attack("chunked, but not last", head(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n", (400,)),
    Attack("chunked in HTTP/1.0", head(CHUNKED, version=b"1.0") + b"0\r\n\r\n", (400,)),
    # chunks
    Attack("an endless body", head(CHUNKED) + (b"8000\r\n" + bytes(0x8000) + b"\r\n") * 100, (413,)),
    Attack("chunks of a byte", head(CHUNKED) + b"1\r\nx\r\n" * 100_000, (400,)),
    Attack("a chunk of no length", head(CHUNKED) + b"x\r\nabc\r\n", (400,)),
    Attack("a chunk of a huge length", head(CHUNKED) + b"F" * 17 + b"\r\nabc", (400,)),
    Attack("a chunk ended by a bare LF", head(CHUNKED) + b"3\nabc\n0\n\n", (400,)),
    Attack("an endless chunk extension", head(CHUNKED) + b"1;" + b"x" * 600_000, (400,)),
    Attack("endless trailers", head(CHUNKED) + b"1\r\nx\r\n0\r\n" + b"A: b\r\n" * 100_000, (400,)),
    # heads
    Attack("one header too many", b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 40 + b"\r\n", (400,)),
    Attack("a header too long", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 10_000 + b"\r\n\r\n", (400,)),
    Attack("an address too long", b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    Attack("a folded header", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", (400,)),
    Attack("NUL in a header", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", (400,)),
    Attack("a bare CR in a header", b"GET /livez HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", (400,)),
    Attack("lines ended by a bare LF", b"GET /livez HTTP/1.1\nHost: x\n\n", (400,)),
    Attack("no Host", b"GET /livez HTTP/1.1\r\n\r\n", (400,)),
    Attack("two Hosts", b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", (400,)),
    Attack("an absurd method", b"FROBNICATE /livez HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    Attack("an absurd version", b"GET /livez HTTP/7.3\r\nHost: x\r\n\r\n", (400,)),
    Attack("CONNECT", b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    # other tongues
    Attack("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, (400,)),
    Attack("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(30), (400,)),
    Attack("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", (400,)),
    Attack("a megabyte of nothing", bytes(1_000_000), (400,)),
    Attack("ends of lines only", b"\r\n" * 500_000, (400,)),
    # many at once
    Attack("5,000 requests at once", GET * 5000, (200,) * 17),
    Attack("20,000 tiny parts", _form((PART + b"x\r\n") * 20_000 + b"--b--\r\n"), (400,)),
    Attack("a part of 400,000 headers", _form(b"--b\r\n" + b"a:\r\n" * 400_000), (400,)),
    Attack("a part with a header of 1.5 MB", _form(b"--b\r\nA: " + b"a" * 1_500_000), (400,)),
)

LIMITS: dict[str, Any] = {
    "SKNET_DEADLINE_S": "2", "SKNET_KEEP_ALIVE_S": "1", "SKNET_MAX_BODY_BYTES": "2000000",
    "SKNET_MAX_HEADER_BYTES": "8192", "SKNET_MAX_HEADERS": "32", "SKNET_MAX_CONNECTIONS": "300",
}  # fmt: skip


def connect(server: Server, timeout_s: float = 20) -> socket.socket:
    """A connection, as it is."""
    return socket.create_connection(("127.0.0.1", server.port), timeout_s)


def read(connection: socket.socket, until: Callable[[bytes], bool] = lambda _: False) -> tuple[bytes, bool]:
    """What comes until the end, or until it is enough; and whether the end came."""
    got = b""
    try:
        while not until(got):
            data = connection.recv(1 << 16)
            if not data:
                return got, True
            got += data
    except ConnectionResetError:
        return got, True
    return got, False


def statuses(answer: bytes) -> tuple[int, ...]:
    """Of the answers on a connection, the interim ones too."""
    return tuple(map(int, _STATUS.findall(answer)))


def attack(server: Server, one: Attack) -> tuple[tuple[int, ...], bool]:
    """Do it once: the statuses that came, and whether the service closes the connection."""
    with connect(server) as connection:
        sender = threading.Thread(target=_send, args=(connection, one))  # so that the answer is read meanwhile
        sender.start()
        got, ended = read(connection, lambda got: got.endswith(b"}") and statuses(got) == one.statuses)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # a sender that is still at it ends
        sender.join()
    return statuses(got), ended or b"\r\nconnection: close\r\n" in got


def _send(connection: socket.socket, one: Attack) -> None:
    with suppress(OSError):  # the service closes where it has heard enough
        connection.sendall(one.sent)
        if one.half_close:
            connection.shutdown(socket.SHUT_WR)


@contextmanager
def many(server: Server, count: int, first: bytes = b"", every_s: float = 0.0) -> Iterator[list[socket.socket]]:
    """So many connections, each of which has sent this, opened in such a time each."""
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            time.sleep(every_s)
            connections.append(stack.enter_context(connect(server)))
            with suppress(ConnectionError):  # refused
                connections[-1].sendall(first)
        yield connections


@dataclass
class Good:
    """What a well-behaved client met: seconds of each request, and what went wrong."""

    seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    answered_at: list[float] = field(default_factory=list)  # on the monotonic clock

    def quantile(self, part: float) -> float:
        """Seconds that this part of the requests took at most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@contextmanager
def good_client(server: Server, every_s: float = 0.02, fresh: int = 5) -> Iterator[Good]:
    """Classifies the same image all the time beside what is done here; each `fresh`th time on a new connection."""
    good, stop = Good(), threading.Event()

    def ask() -> None:
        with ExitStack() as stack:
            connection: socket.socket | None = None
            while not stop.wait(every_s):
                started = time.perf_counter()
                try:
                    if connection is None or len(good.seconds) % fresh == 0:
                        stack.close()
                        connection = stack.enter_context(connect(server))
                    connection.sendall(POST)
                    answer, _ = read(connection, lambda got: got.endswith(b"}"))
                    if statuses(answer) == (200,):
                        good.answered_at.append(time.monotonic())
                    else:
                        good.faults.append(repr(answer[:300]))
                    if b"\r\nconnection: close\r\n" in answer or statuses(answer) != (200,):
                        connection = None
                except OSError as error:
                    good.faults.append(repr(error))
                    connection = None
                good.seconds.append(time.perf_counter() - started)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield good
    finally:
        stop.set()
        asking.join()
