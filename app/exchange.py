"""One HTTP/1.1 exchange on an open connection: a GET, and an answer that is bounded in every direction.

httptools parses, which is in C: a server that sends an image in pieces of one byte costs 0.2 us a piece, where a parser
written in Python (h11) takes 16 us, all of it time of the event loop. Knows neither redirects nor where the connection leads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools

from app.errors import BodyTooLarge, SourceUnreachable
from app.urls import Target

FRAMING_BYTES = 65_536  # of all that is no image: headers, interim answers, trailers, sizes of chunks ...
READ_BYTES = 65_536
OK = 200
REDIRECTS = frozenset({301, 302, 303, 307, 308})  # those that say where to (RFC 9110, section 15.4)
_KEPT = frozenset({b"location", b"content-length", b"content-encoding", b"transfer-encoding"})


class Answer:
    """What a server answered, as the parser tells it. `status` is 0 until the headers of the final answer are in."""

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.headers: dict[bytes, list[bytes]] = {}
        self.body = bytearray()
        self.complete = False
        self._limit = limit
        self._parser = httptools.HttpResponseParser(self)
        self._fed = 0

    def feed(self, data: bytes) -> None:
        """Take what was read.

        Raises:
            SourceUnreachable: it is no HTTP/1.1, holds too much that is no image, or an image in a form that was not asked for.
            BodyTooLarge: it has or announces more bytes than the limit.
        """
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self.complete:  # what follows a whole answer is not for us
                raise unreachable("its server does not answer in HTTP/1.1") from None
        size = len(self.body)
        if self.status == OK:
            self._check(size)
        # ... and as many as the image has, since a small chunk needs as much for its size.
        if self._fed - size > FRAMING_BYTES + size and not self.complete:
            raise unreachable(f"its server sends more than {FRAMING_BYTES} bytes around it")

    def feed_eof(self) -> None:
        """The server ended the connection, which is how an answer without a length ends.

        Raises:
            SourceUnreachable: the answer is not whole.
        """
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        if not self.status or (framed and not self.complete):
            raise unreachable("its server ended the connection too early")
        self.complete = True

    def _check(self, size: int) -> None:
        coding = b", ".join(self.headers.get(b"content-encoding", ())).lower()
        if coding not in (b"", b"identity"):  # a kilobyte of gzip may be a megabyte of zeros
            raise unreachable("its server sends it compressed, which was not asked for")
        # Of digits alone and below 2**64: the parser took it. It takes any number of zeros, and `int` does not.
        announced = int(self.headers.get(b"content-length", [b"0"])[0].lstrip(b"0") or b"0")
        if max(announced, size) > self._limit:
            raise BodyTooLarge(self._limit, max(announced, size))

    def end(self) -> None:
        """Let go of the parser, which holds this: the image must not wait for the next collection of circles."""
        del self._parser

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if not self.status and name in _KEPT:
            self.headers.setdefault(name, []).append(value.strip())

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.status:
            return
        if status < OK:  # interim: another answer follows (RFC 9110, section 15.2)
            self.headers.clear()
        else:
            self.status = status

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = self.status != 0


async def get(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Target,
    agent: str,
    limit: int,
    take: Callable[[int], None],
) -> Answer:
    """Ask for `target`; read the answer to its end where its status is 200, and its headers where not.

    `take` is told of every byte of the image before the next is waited for, and may raise. `limit` in bytes.

    Raises:
        SourceUnreachable, BodyTooLarge: as `Answer`.
    """
    head = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nUser-Agent: {agent}\r\n"
    # No Referer, cookies or credentials; compressed answers could be far larger than they look.
    writer.write(f"{head}Accept: */*\r\nAccept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii"))
    answer = Answer(limit)
    try:
        while not answer.complete and answer.status in (0, OK):
            before = len(answer.body)
            data = await _read(reader)
            if data:
                answer.feed(data)
                take(len(answer.body) - before)
            else:
                answer.feed_eof()
    finally:
        answer.end()
    return answer


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(READ_BYTES)
    except OSError:  # reset, or TLS gone wrong: nothing more will come
        return b""


def unreachable(why: str) -> SourceUnreachable:
    """The one way of saying that an image could not be fetched."""
    return SourceUnreachable(f"the image could not be fetched: {why}")
