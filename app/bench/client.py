"""A lean HTTP/1.1 client on bare asyncio streams, for putting load on a service without taking its processor away.

As a program it keeps some connections busy for some seconds and prints what came of it as one line of JSON:
`python -m app.bench.client HOST PORT PATH CONTENT_TYPE CONNECTIONS SECONDS BODY_FILE...`

It reads answers that carry a Content-Length, which this service's always do. It knows nothing of images.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Answer:
    """Status as the three digits that came, headers in lower case, body, seconds from the first byte out to the last in."""

    code: str
    headers: dict[str, str]
    body: bytes
    seconds: float

    @property
    def ok(self) -> bool:
        return self.code.startswith("2")


@dataclass
class Connection:
    """One connection, opened when first used and again after the service closed it."""

    host: str
    port: int
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes, body: bytes = b"") -> Answer:
        """Send a request as it stands and read its answer.

        Raises:
            OSError, EOFError: the connection broke before the answer was whole.
        """
        started = time.perf_counter()
        if self._writer is None or self._reader is None or self._writer.is_closing() or self._reader.at_eof():
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
        try:
            # A refusal may come, and the connection close, before the whole body is out: so read while writing.
            async with asyncio.timeout(LIMIT_S):
                writing = asyncio.create_task(self._send(self._writer, request, body))
                answer = await self._read(self._reader, started)
                if not writing.done():
                    self.close()
                    writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
        except BaseException:
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        """Drop the connection, with whatever is under way on it."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, request: bytes, body: bytes) -> None:
        writer.write(request)
        if body:
            writer.write(body)
        await writer.drain()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, started: float) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(head[0].split()[1], headers, body, time.perf_counter() - started)


def post(host: str, path: str, content_type: str, length: int, *extra: str) -> bytes:
    """The head of a POST request; its body goes to `Connection.ask` beside it."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Type: {content_type}", f"Content-Length: {length}", *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def get(host: str, path: str) -> bytes:
    """A GET request."""
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("latin-1")


@dataclass
class Tally:
    """Seconds of every good answer, and how many were of another kind."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    broken: int = 0


async def keep_busy(host: str, port: int, requests: Sequence[tuple[bytes, bytes]], connections: int, seconds: float) -> Tally:
    """Ask on `connections` connections, each again as soon as it is answered, until the time is over."""
    tally = Tally()
    end = time.perf_counter() + seconds

    async def ask(first: int) -> None:
        connection = Connection(host, port)
        turn = first
        while time.perf_counter() < end:
            try:
                answer = await connection.ask(*requests[turn % len(requests)])
            except (OSError, EOFError, TimeoutError):
                tally.broken += 1
                await asyncio.sleep(0.05)
            else:
                if answer.ok:
                    tally.seconds.append(answer.seconds)
                else:
                    tally.refused += 1
            turn += 1
        connection.close()

    await asyncio.gather(*(ask(i) for i in range(connections)))
    return tally


def main(arguments: Sequence[str]) -> None:
    host, port, path, content_type, connections, seconds, *files = arguments
    bodies = [Path(name).read_bytes() for name in files]
    requests = [(post(host, path, content_type, len(body)), body) for body in bodies]
    started = time.perf_counter()
    tally = asyncio.run(keep_busy(host, int(port), requests, int(connections), float(seconds)))
    wall = time.perf_counter() - started
    print(json.dumps({"wall_s": wall, "seconds": tally.seconds, "bad": tally.refused + tally.broken}))  # noqa: T201 - its output


if __name__ == "__main__":
    main(sys.argv[1:])
