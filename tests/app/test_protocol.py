"""A connection byte by byte: what is answered, what is refused, and when it is closed. No socket: the transport is a list."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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


@pytest.mark.parametrize("before", [1, 3])
async def test_a_body_that_cannot_be_read_does_not_touch_the_answers_before_it(connection: Connection, before: int) -> None:
    connection.gate.clear()
    connection.send(GET * before + CHUNKED, b"3\r\nabc\r\n")
    await until(lambda: connection.requests)
    connection.send(b"no chunk\r\n", GET)
    assert connection.transport.written == b""
    assert not connection.transport.closed
    connection.gate.set()
    await until(lambda: connection.transport.closed)
    assert connection._answers() == [(200, b"0")] * before
    assert connection.transport.written.count(b"connection: close") == 1
    assert len(connection.requests) == before  # the bad one never began


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


# what its client no longer says, or takes


class Loopback:
    """A service on a real socket whose application waits at a gate, or ends with its client."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.entered = 0
        self.left = 0
        self.metrics = Metrics()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.entered += 1
        try:
            await Request(scope, receive).body()
        except ClientDisconnect:
            self.left += 1
            return
        gone, through = asyncio.ensure_future(receive()), asyncio.ensure_future(self.gate.wait())
        await asyncio.wait((gone, through), return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.left += 1
        else:
            await PlainTextResponse("x" * (1 << 20) if scope["path"] == "/large" else "x")(scope, receive, send)
        gone.cancel()
        through.cancel()

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0


@asynccontextmanager
async def loopback(limit: int = 10, **settings: Any) -> AsyncIterator[tuple[Loopback, int]]:
    """The service and its port; the gate is closed."""
    app = Loopback()
    config = uvicorn.Config(app, http=BoundedHttpTools, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    given, connections, state = Settings(**settings), Connections(limit, app.metrics), ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: BoundedHttpTools(config, state, {}, settings=given, open_connections=connections), "127.0.0.1", 0
    )
    try:
        yield app, server.sockets[0].getsockname()[1]
    finally:
        app.gate.set()
        for connection in list(state.connections):
            connection.transport.abort()
        server.close()
        await asyncio.gather(*state.tasks, return_exceptions=True)
        await asyncio.sleep(0)


async def test_a_client_that_ends_its_side_is_answered_and_one_that_leaves_ends_the_work() -> None:
    async with loopback() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        _, leaver = await asyncio.open_connection("127.0.0.1", port)
        for each in (writer, leaver):
            each.write(GET)
        await until(lambda: app.entered == 2)
        writer.write_eof()
        leaver.close()
        await until(lambda: app.left == 1)
        app.gate.set()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert b"connection: close" in answer
        assert app.left == 1
        writer.close()


async def test_one_that_ends_its_side_and_then_leaves_what_it_was_sent_ends_the_work() -> None:
    async with loopback() as (app, port):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(GET)
            await until(lambda: app.entered)
            client.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.05)
            assert app.left == 0
        await until(lambda: app.left == 1)


async def test_one_that_leaves_with_requests_ahead_ends_the_work_and_those_never_begin() -> None:
    async with loopback() as (app, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET * 3)
        await until(lambda: app.entered)
        writer.transport.abort()
        await until(lambda: app.left == 1)
        app.gate.set()
        await until(lambda: app.metric("sknet_connections") == 0)
        assert app.entered == 1


async def test_nothing_is_written_for_one_that_left_with_requests_ahead(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(GET * 3)
    await until(lambda: connection.requests)
    connection.protocol.connection_lost(None)
    connection.transport.closed = False  # so that it keeps what it should not get
    connection.gate.set()
    await asyncio.gather(*connection.protocol.tasks)
    assert connection.transport.written == b""
    assert len(connection.requests) == 1


@pytest.mark.parametrize("sent", [GET.replace(b"1.1", b"1.0"), b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"])
async def test_the_end_of_an_http_1_0_client_and_of_half_a_request_is_taken_for_leaving(sent: bytes) -> None:
    async with loopback() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        await until(lambda: app.entered)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_what_nobody_takes_is_not_kept_for_ever() -> None:
    async with loopback(deadline_s=0.1) as (app, port):
        app.gate.set()
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(deaf, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
            await until(lambda: app.metric("sknet_connections") == 1)
            await until(lambda: app.metric("sknet_connections") == 0, 20)
        assert app.entered < 30


async def test_the_oldest_silent_connection_gives_way_and_one_at_work_does_not() -> None:
    async with loopback(limit=2) as (app, port):
        busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
        busy_writer.write(GET)
        await until(lambda: app.entered == 1)
        silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
        newest, newest_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await silent.read() == b""
        newest_writer.write(GET)
        await until(lambda: app.entered == 2)
        refused, refused_writer = await asyncio.open_connection("127.0.0.1", port)
        answer = await refused.read()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nretry-after: 1\r\n" in answer
        assert b"all 2 connections are in use" in answer
        app.gate.set()
        for reader in (busy, newest):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
        assert [app.metric("sknet_connections_cut_total", reason=reason) for reason in ("idle", "refused")] == [1, 1]
        for writer in (busy_writer, silent_writer, newest_writer, refused_writer):
            writer.close()


UNREADABLE = {
    "garbage": b"\x16\x03garbage",
    "too many": GET * (protocol.AHEAD + 1),
    "a garbled body": CHUNKED + b"no chunk\r\n",
    "an endless head": b"GET /" + b"x" * HEAD_BYTES,
}


@pytest.mark.parametrize("behind", UNREADABLE.values(), ids=UNREADABLE)
async def test_accepted_work_with_something_unreadable_behind_it_does_not_give_way(behind: bytes) -> None:
    async with loopback(limit=2) as (app, port):
        busy, busy_writer = await asyncio.open_connection("127.0.0.1", port)
        busy_writer.write(GET + behind)  # in one read
        await until(lambda: app.entered == 1)
        silent, silent_writer = await asyncio.open_connection("127.0.0.1", port)
        _, newest_writer = await asyncio.open_connection("127.0.0.1", port)
        assert await silent.read() == b""
        app.gate.set()
        assert (await busy.read()).startswith(b"HTTP/1.1 200")  # to its end: it is closed
        for writer in (busy_writer, silent_writer, newest_writer):
            writer.close()


# what is too much at once


async def test_more_requests_ahead_than_allowed_are_not_kept(connection: Connection) -> None:
    connection.gate.clear()
    connection.send(GET * 1000)
    assert len(connection.protocol.pipeline) == protocol.AHEAD
    connection.gate.set()
    assert await connection.answers(1 + protocol.AHEAD) == [(200, b"0")] * (1 + protocol.AHEAD)
    await until(lambda: connection.transport.closed)


async def test_chunks_of_a_few_bytes_are_refused_before_they_hold_the_loop(connection: Connection) -> None:
    connection.send(CHUNKED + b"1\r\nx\r\n" * protocol.PIECES + b"0\r\n\r\n")
    assert await connection.answers(1) == [(200, b"%d" % protocol.PIECES)]
    connection.send(CHUNKED + b"1\r\nx\r\n" * (protocol.PIECES + 1))
    await connection.refused("chunks of a few bytes")


@pytest.mark.parametrize("hosts", [b"", b"Host: x\r\nhost: x\r\n"])
async def test_there_is_one_host(connection: Connection, hosts: bytes) -> None:
    connection.send(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")
    await connection.refused("exactly one Host")


async def test_limits_of_the_settings_hold() -> None:
    connection = connect(max_header_bytes=2000, max_headers=20)
    connection.send(GET[:-2] + b"A: b\r\n" * 19 + b"\r\n")
    assert await connection.answers(1) == [(200, b"0")]
    connection.send(GET[:-2] + b"A: b\r\n" * 20 + b"\r\n")
    await connection.refused("more than 20 headers")
    other = connect(max_header_bytes=2000)
    other.send(GET[:-2] + b"A: " + b"b" * 2000 + b"\r\n\r\n")
    await other.refused("more than 2000 bytes")
