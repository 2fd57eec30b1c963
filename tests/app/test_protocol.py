"""A connection byte by byte: what is answered, what is refused, and when it is closed. No socket: the transport is a list."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app import protocol
from app.connections import Connections
from app.metrics import Metrics
from app.protocol import BoundedHttpTools
from app.settings import Settings
from tests.app.asgi import until

GET = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD_BYTES, HEADERS = Settings().max_header_bytes, Settings().max_headers
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.1", 1234), "sockname": ("127.0.0.1", 80)}.get(name, default)

    def write(self, data: Any) -> None:
        if not self.closed:
            self.written += bytes(data)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def write_eof(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


@dataclass
class Connection:
    """A client's end, and what the application saw."""

    protocol: BoundedHttpTools
    transport: Transport
    gate: asyncio.Event
    requests: list[dict[str, Any]]
    left: list[Scope]  # of those whose client was gone before the body was in

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            if not self.transport.closed:
                self.protocol.data_received(piece)

    async def answers(self, count: int) -> list[tuple[int, bytes]]:
        """The first answers, (status, body) each, once they are out."""
        await until(lambda: len(self._answers()) >= count)
        return self._answers()

    def _answers(self) -> list[tuple[int, bytes]]:
        found, rest = [], self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            status, *lines = head.split(b"\r\n")
            headers = dict(line.lower().split(b": ", 1) for line in lines)
            length = int(headers[b"content-length"])
            found.append((int(status.split()[1]), rest[:length]))
            rest = rest[length:]
        return found

    async def refused(self, words: str) -> None:
        """Hold that the connection ends in a problem document."""
        await until(lambda: self.transport.closed)
        head, _, body = self.transport.written.rpartition(b"\r\n\r\n")
        assert b"HTTP/1.1 400 Bad Request\r\n" in head
        assert b"content-type: application/problem+json\r\n" in head
        assert b"x-request-id: " in head
        assert head.endswith(b"connection: close")
        problem = json.loads(body)
        assert (problem["type"], problem["status"]) == ("/problems/malformed-request", 400)
        assert words in problem["detail"]


def connect(keep_alive_s: int = 5, limit: int = 10, **settings: Any) -> Connection:
    gate = asyncio.Event()
    gate.set()
    seen: list[dict[str, Any]] = []
    left: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append({k: scope[k] for k in ("method", "path", "query_string", "http_version")})
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            left.append(scope)
            return
        seen[-1] |= {"body": body, "headers": list(scope["headers"])}
        await gate.wait()
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    config = uvicorn.Config(app, http=BoundedHttpTools, ws="none", lifespan="off", log_config=None, access_log=False)
    config.timeout_keep_alive = keep_alive_s
    config.load()
    protocol = BoundedHttpTools(
        config, ServerState(), {}, settings=Settings(**settings), open_connections=Connections(limit, Metrics())
    )
    transport = Transport()
    protocol.connection_made(transport)
    return Connection(protocol, transport, gate, seen, left)


@pytest.fixture(autouse=True)
def _no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_S", 0.0)


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    made = connect()
    yield made
    made.gate.set()
    if not made.transport.closed:
        made.transport.close()
    made.protocol.connection_lost(None)
    await asyncio.gather(*made.protocol.tasks, return_exceptions=True)


# what is answered


async def test_a_request_whole_and_in_single_bytes(connection: Connection) -> None:
    connection.send(GET, *(GET[i : i + 1] for i in range(len(GET))))
    assert await connection.answers(2) == [(200, b"0")] * 2
    assert connection.requests[0] == connection.requests[1]
    assert (connection.requests[0]["path"], connection.requests[0]["query_string"]) == ("/a", b"b=c")
    assert not connection.transport.closed


@pytest.mark.parametrize("step", [1, 7, 65_536, 300_000])
async def test_bodies_arrive_whole_however_they_are_cut(connection: Connection, step: int) -> None:
    body = bytes(range(256)) * (10 if step == 1 else 1000)
    message = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    connection.send(*(message[i : i + step] for i in range(0, len(message), step)))
    assert await connection.answers(1) == [(200, b"%d" % len(body))]
    assert connection.requests[0]["body"] == body


async def test_requests_sent_ahead_are_answered_in_order(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(b"".join(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (n, n) + b"x" * n for n in range(5)))
    connection.gate.set()
    assert await connection.answers(5) == [(200, b"%d" % n) for n in range(5)]


async def test_a_head_of_almost_the_limit_is_read(connection: Connection) -> None:
    connection.send(GET[:-2] + b"A: " + b"x" * (HEAD_BYTES - 100) + b"\r\n\r\n")
    assert await connection.answers(1) == [(200, b"0")]


@pytest.mark.parametrize("body", [b"", b"\x02" * 1000])
@pytest.mark.parametrize("step", [10, 100_000])
async def test_an_offer_to_upgrade_is_ignored(connection: Connection, body: bytes, step: int) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    head = b"POST /a?b HTTP/1.1\r\nHost: x\r\n" + offer + b"Content-Length: %d\r\n\r\n" % len(body)
    message = head + body + GET
    connection.send(*(message[i : i + step] for i in range(0, len(message), step)))
    assert await connection.answers(2) == [(200, b"%d" % len(body)), (200, b"0")]
    first = connection.requests[0]
    assert (first["method"], first["path"], first["query_string"], first["body"]) == ("POST", "/a", b"b", body)
    assert dict(first["headers"])[b"http2-settings"] == b"AAMAAABk"


OFFER = b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("step", [10, 100_000])
async def test_offers_in_a_row_are_each_ignored(connection: Connection, step: int) -> None:
    message = b"".join(OFFER % n for n in range(3)) + GET
    connection.send(*(message[i : i + step] for i in range(0, len(message), step)))
    assert await connection.answers(4) == [(200, b"0")] * 4
    assert [request["path"] for request in connection.requests] == ["/0", "/1", "/2", "/a"]
    assert not connection.transport.closed


async def test_a_proxy_is_not_offered_behind_an_offer_either(connection: Connection) -> None:
    connection.send(OFFER % 0 + b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03")
    await until(lambda: connection.transport.closed)
    assert [request["path"] for request in connection.requests] == ["/0"]


async def test_a_websocket_is_not_offered(connection: Connection) -> None:
    connection.send(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert await connection.answers(1) == [(200, b"0")]


async def test_trailers_do_not_become_headers(connection: Connection) -> None:
    connection.send(CHUNKED, b"3\r\nabc\r\n0\r\n", b"X-Request-ID: late\r\n\r\n", GET)
    assert await connection.answers(2) == [(200, b"3"), (200, b"0")]
    assert [name for name, _ in connection.requests[0]["headers"]] == [b"host", b"transfer-encoding"]


# what is refused


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01", b"hello\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n", b"GET /\xff\xfe HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: \x00\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ],
)  # fmt: skip
async def test_what_is_no_http(connection: Connection, sent: bytes) -> None:
    connection.send(sent)
    await connection.refused("no valid HTTP/1.1")
    assert connection.requests == []


async def test_a_proxy_is_not_offered(connection: Connection) -> None:
    connection.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03")
    await connection.refused("CONNECT is not served")
    assert connection.requests == []


LONG = b"x" * HEAD_BYTES


@pytest.mark.parametrize("step", [1000, 256_000])  # the second is the most that comes in one read
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"GET /" + LONG, id="an address that does not end"),
        pytest.param(b"GET /" + LONG + b" HTTP/1.1\r\n\r\n", id="a long address"),
        pytest.param(GET[:-2] + b"A: " + LONG, id="a header that does not end"),
        pytest.param(GET[:-2] + b"A: " + LONG + b"\r\n\r\n", id="a long header"),
        pytest.param(GET[:-2] + (b"A: " + b"x" * 1000 + b"\r\n") * 70 + b"\r\n", id="many headers"),
        pytest.param(b"\r\n" * 40_000, id="nothing but ends of lines"),
        pytest.param(CHUNKED + b"1;" + LONG * 5, id="a chunk extension"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\nA: " + LONG * 5, id="a trailer"),
        pytest.param(CHUNKED + b"1\r\nx\r\n0\r\n" + (b"A: " + b"x" * 1000 + b"\r\n") * 350, id="trailers"),
    ],
)
async def test_what_does_not_end_is_refused(connection: Connection, sent: bytes, step: int) -> None:
    connection.send(*(sent[i : i + step] for i in range(0, len(sent), step)))
    await connection.refused(f"more than {HEAD_BYTES} bytes")


async def test_too_many_headers(connection: Connection) -> None:
    connection.send(GET[:-2] + b"a:\r\n" * (HEADERS - 1) + b"\r\n")
    assert await connection.answers(1) == [(200, b"0")]
    connection.send(GET[:-2] + b"a:\r\n" * HEADERS + b"\r\n")
    await connection.refused(f"more than {HEADERS} headers")


async def test_a_body_that_cannot_be_read_is_no_longer_waited_for(connection: Connection) -> None:
    connection.send(CHUNKED, b"3\r\nabc\r\n")
    await until(lambda: connection.requests)
    connection.send(b"no chunk\r\n")
    await connection.refused("no valid HTTP/1.1")
    await until(lambda: connection.left)


async def test_garbage_behind_a_request_does_not_touch_its_answer(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(GET, b"\x00garbage" * 1000, b"more of it")
    await until(lambda: connection.requests)
    assert connection.transport.written == b""
    connection.gate.set()
    await until(lambda: connection.transport.closed)
    assert [status for status, _ in connection._answers()] == [200]


# when it is closed


async def test_a_connection_that_says_nothing_is_closed() -> None:
    connection = connect(keep_alive_s=0)
    await until(lambda: connection.transport.closed)
    assert connection.transport.written == b""


@pytest.mark.parametrize("start", [b"GET / HT", b"\r\n", GET + b"GET / HT"])
async def test_a_head_that_does_not_end_is_closed(connection: Connection, start: bytes) -> None:
    connection.protocol.timeout_keep_alive = 0
    connection.send(start)
    if start == b"\r\n":  # still the clock of the connection itself
        connection.protocol.timeout_keep_alive_handler()
    await until(lambda: connection.transport.closed)
    assert connection.transport.written.count(b"200 OK") == start.startswith(GET)


async def test_a_head_in_time_stops_the_clock(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(GET[:10])
    assert connection.protocol.timeout_keep_alive_task is not None
    connection.send(GET[10:])
    assert connection.protocol.timeout_keep_alive_task is None
    connection.gate.set()
    await connection.answers(1)
    await until(lambda: connection.protocol.timeout_keep_alive_task)  # now for the next request


async def test_a_late_head_does_not_end_the_request_before_it(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(GET)
    await until(lambda: connection.requests)
    connection.protocol.timeout_keep_alive = 0
    connection.send(b"GET / HT")
    await until(lambda: not connection.protocol.cycle.keep_alive)
    assert not connection.transport.closed
    connection.gate.set()
    assert await connection.answers(1) == [(200, b"0")]
    await until(lambda: connection.transport.closed)
