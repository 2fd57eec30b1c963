"""What a collector may answer: so much, and all of it in time. The collector here is a socket that says what it is told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from requests.exceptions import ConnectionError as Disconnected
from requests.exceptions import RequestException, Timeout

from app.otlp_session import MOST_BYTES, bounded_session

CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
Say = Callable[[socket.socket], None]


class Collector:
    """Takes connections one after the other, reads what they post, and says what `say` says."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1/traces"
        self.connections = self.requests = self.said = 0
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                with connection, suppress(OSError):  # gone
                    connection.settimeout(10)
                    while self._read(connection):
                        self.requests += 1
                        self._say(connection)

    def _read(self, connection: socket.socket) -> bool:
        text = b""
        while b"\r\n\r\n" not in text:
            piece = connection.recv(65536)
            if not piece:
                return False
            text += piece
        head, _, body = text.partition(b"\r\n\r\n")
        length = next(int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        while len(body) < length:
            body += connection.recv(65536)
        return True

    @contextmanager
    def running(self) -> Iterator[Collector]:
        self._thread.start()
        try:
            yield self
        finally:
            self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._thread.join(20)
            assert not self._thread.is_alive()


def saying(text: bytes) -> Say:
    return lambda connection: connection.sendall(text)


def drip(head: bytes, piece: bytes) -> Say:
    def say(connection: socket.socket) -> None:
        connection.sendall(head)
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)

    return say


def spans() -> list[ReadableSpan]:
    return [TracerProvider(shutdown_on_exit=False).get_tracer("a").start_span("b")]  # type: ignore[list-item]


def test_what_a_collector_answers_is_there_and_its_connection_is_used_again() -> None:
    answer = b"HTTP/1.1 503 Not now\r\nContent-Length: 4\r\nRetry-After: 7\r\n\r\nwait"
    with Collector(saying(answer)).running() as collector, bounded_session() as session:
        for _ in range(2):
            got = session.post(collector.url, b"x", timeout=5)
            assert (got.status_code, got.ok, got.reason, got.text, got.content) == (503, False, "Not now", "wait", b"wait")
            assert got.headers["retry-after"] == "7"
            del got  # an answer holds its connection open
    assert (collector.connections, collector.requests) == (1, 2)


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (CLOSE + b"abc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", b""),
        (CLOSE + bytes(MOST_BYTES), bytes(MOST_BYTES)),
    ],
)
def test_forms_of_answers(answer: bytes, content: bytes) -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)

    with Collector(say).running() as collector, bounded_session() as session:
        assert session.post(collector.url, b"x", timeout=5).content == content


@pytest.mark.parametrize("head", [CLOSE, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n"])
def test_an_answer_without_end_is_not_read_to_its_end(head: bytes) -> None:
    collector: Collector

    def say(connection: socket.socket) -> None:
        connection.sendall(head)
        while collector.said < 100_000_000:  # no buffer of a socket holds as much
            connection.sendall(bytes(100_000))
            collector.said += 100_000

    collector = Collector(say)
    with collector.running(), bounded_session() as session:
        got = session.post(collector.url, b"x", timeout=10)
        assert (got.status_code, len(got.content)) == (200, MOST_BYTES)
    assert collector.said < 100_000_000


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (CLOSE, b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nName: ", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
)
def test_an_answer_that_drips_has_no_longer_than_one_that_is_silent(head: bytes, piece: bytes) -> None:
    with Collector(drip(head, piece)).running() as collector, bounded_session() as session:
        started = time.monotonic()
        with pytest.raises((Disconnected, Timeout)):  # both are what the library tries again after, while it has time
            session.post(collector.url, b"x", timeout=0.3)
        assert 0.3 <= time.monotonic() - started < 5  # of 10


def test_an_answer_that_breaks_off_is_a_connection_that_did() -> None:
    def say(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        connection.shutdown(socket.SHUT_RDWR)

    with Collector(say).running() as collector, bounded_session() as session, pytest.raises(RequestException) as found:
        session.post(collector.url, b"x", timeout=5)
    assert isinstance(found.value, Disconnected)


def test_the_librarys_exporter_is_content_with_it(caplog: pytest.LogCaptureFixture) -> None:
    with Collector(saying(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")).running() as collector:
        exporter = OTLPSpanExporter(collector.url, session=bounded_session())
        assert exporter.export(spans()) is SpanExportResult.SUCCESS
        exporter.shutdown()  # type: ignore[no-untyped-call]
    with Collector(drip(CLOSE, b"x")).running() as collector:
        exporter = OTLPSpanExporter(collector.url, session=bounded_session(), timeout=0.3)
        started = time.monotonic()
        assert exporter.export(spans()) is SpanExportResult.FAILURE
        assert time.monotonic() - started < 5
        exporter.shutdown()  # type: ignore[no-untyped-call]
    assert caplog.messages == ["Failed to export spans batch due to timeout, max retries or shutdown."]
