"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, which is fast, with the bounds that neither of them has.

It knows bytes and connections, and no route: what it refuses never reached the application, so that no access line tells of it
but its own warning, and of the counts only those of refusals.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from app.connections import TELLS_GONE, Connections, Wait, is_gone, limit_silence
from app.errors import AppError, MalformedRequest, NotReady
from app.problems import MEDIA_TYPE, PREFIX, problem_of
from app.settings import Settings

AHEAD = 16  # requests that may wait behind the one that is answered: each costs memory, and each in turn a place in the loop
PIECES = 4096  # of a body in one read of 256 kB at most: each costs a microsecond, and the loop does nothing else meanwhile
# A refused client has to take its answer: closing on bytes that nobody read may destroy it (RFC 9112, section 9.6).
LINGER_S = 0.5
LINGER_BYTES = 1 << 20  # read and thrown away meanwhile
LOOK_S, LOOK_AT_LEAST_S = 0.001, 0.25  # after its client's last byte: whether it is still there, then at ever longer intervals


class BoundedHttpTools(HttpToolsProtocol):
    """One connection. Beyond what it inherits:

    - Heads, trailers and chunk extensions are bounded: the parser joins what comes in pieces, so 30 MB of one header took
      11 s of the loop. So are requests sent ahead, and chunks of a few bytes.
    - A head must be complete `keep_alive_s` after the connection was made, and after its own first bytes; uvicorn itself
      waits for ever. So it does for clients that take no answer; here the kernel ends them after `deadline_s`.
    - Trailers are dropped. uvicorn would append them to the headers that the application is already reading.
    - An offer to upgrade (h2c) is ignored (RFC 9110, section 7.8) and keeps its body. httptools would drop the body.
    - A request that cannot be read is answered with a problem document, and not in the middle of another answer.
    - A client that ends its side after its request still gets the answer.
    """

    wait: Wait | None = None

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        settings: Settings,
        open_connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._head_limit = settings.max_header_bytes
        self._header_limit = settings.max_headers
        self._silence_s = settings.deadline_s
        self._open = open_connections
        self._loose = 0  # bytes up to the end of a read since a head ended or the last byte of a body came
        self._head_bytes = 0
        self._pieces = 0  # of a body, in one read
        self._in_head = False
        self._head_is_late = False  # its first bytes came without its last: the clock runs
        self._deaf = False  # refused: what still comes is thrown away
        self._droppable: int | None = None  # bytes of that, once the refusal is out
        self._ended = False  # the client sends no more
        self._turn: RequestResponseCycle | None = None  # the request that is answered now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it
        limit_silence(self.transport, self._silence_s)
        self._start_clock()
        if not self._open.open(self):
            self._deaf = True
            self._answer(NotReady((f"all {self._open.limit} connections are in use",)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.close(self)
        self._unset_keepalive_if_required()
        self.pipeline.clear()
        turn = self._turn
        if turn is not None and not turn.response_complete:  # uvicorn tells only the last one that was read
            turn.disconnected = True
            turn.message_event.set()
        super().connection_lost(exc)

    def cut(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._drop(len(data))
            return
        self._loose += len(data)
        self._pieces = 0
        try:
            self._feed(data)
        except (httptools.HttpParserError, MalformedRequest) as error:
            ours = error if isinstance(error, MalformedRequest) else error.__context__  # raised in what the parser calls
            self._refuse(str(ours) if isinstance(ours, MalformedRequest) else "the request is no valid HTTP/1.1")
        else:
            if self._loose > self._head_limit:
                self._refuse(self._too_long())
            elif self._in_head and not self._head_is_late:
                self._head_is_late = True
                self._start_clock()
        self._note()  # of a refusal as well: there may be accepted work before it

    def _feed(self, data: bytes) -> None:
        rest = memoryview(data)
        while True:  # one read may hold several requests that each offer
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as offer:
                end_of_head = offer.args[0]
            head = self._head_without_offer()  # makes a new parser
            self.parser.feed_data(head)
            rest = rest[end_of_head:]

    def _head_without_offer(self) -> bytes:
        """The head that was just read, for a new parser; the old one takes what follows for another protocol."""
        method = self.parser.get_method()
        if method == b"CONNECT":  # an upgrade by itself, offer or not
            raise MalformedRequest("this is no proxy: CONNECT is not served")
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (method, self.url, version)]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does: for pipelined requests
        return b"\r\n".join((*lines, b"", b""))

    # what the parser tells

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return
        self._count(name, value)
        if len(self.headers) == self._header_limit:
            raise MalformedRequest(f"there are more than {self._header_limit} headers")
        super().on_header(name, value)

    def _count(self, *parts: bytes) -> None:
        """Of a head that ends in the read that it began in, `data_received` learns nothing."""
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > self._head_limit:
            raise MalformedRequest(self._too_long())

    def _too_long(self) -> str:
        return f"the address, headers, trailers or chunk extensions have more than {self._head_limit} bytes"

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # `_feed` hears of it next
        if self.parser.get_http_version() == "1.1":
            if sum(name == b"host" for name, _ in self.headers) != 1:
                raise MalformedRequest("there must be exactly one Host header")  # RFC 9112, section 3.2
        else:
            self.expect_100_continue = False  # such a client knows no interim answer (RFC 9110, section 10.1.1)
            if any(name == b"transfer-encoding" for name, _ in self.headers):  # RFC 9112, section 6.1
                raise MalformedRequest("Transfer-Encoding is no part of HTTP/1.0")
        if len(self.pipeline) == AHEAD:
            raise MalformedRequest(f"more than {AHEAD} requests were sent ahead of their answers")
        self._in_head = self._head_is_late = False
        self._loose = 0
        self._unset_keepalive_if_required()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        self._pieces += 1
        if self._pieces > PIECES:
            raise MalformedRequest("the body comes in chunks of a few bytes each")
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._in_head:
            super().on_message_complete()

    # what it waits for

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._turn = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._note()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._note()

    def _note(self) -> None:
        cycle = self.cycle  # the last one that was read
        if cycle is None or cycle.response_complete:
            self._open.waits(self, Wait.IDLE)
        elif self.flow.write_paused:
            self._open.waits(self, Wait.READER)
        else:
            self._open.waits(self, Wait.BODY if cycle.more_body and not self.pipeline else Wait.WORK)

    # the clock, and the end

    def _start_clock(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # a pipelined head is late: the request before it is answered first
        else:
            super().timeout_keep_alive_handler()

    def eof_received(self) -> bool:  # type: ignore[override]  # which uvicorn narrowed to None
        """The client sends no more: it left, or waits for its answer without wanting to ask again (RFC 9112, section 9.6).

        Only what comes back from a client that left can tell. It is sent an interim answer, which any client of HTTP/1.1
        passes over (RFC 9110, section 15.2.1): where nobody is, the system answers that with a reset.
        """
        cycle, turn = self.cycle, self._turn
        if self._droppable is not None or cycle is None or cycle.response_complete or cycle.more_body or turn is None:
            return False  # nothing is under way, or never will be: closed
        if not self._ended and not turn.response_started:
            if not TELLS_GONE or turn.scope["http_version"] != "1.1":
                return False  # 1.0 knows no interim answers; proxies that speak it end their side only when they leave
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.loop.call_later(LOOK_S, self._look, LOOK_S)
        self._ended = True
        cycle.keep_alive = False
        return True

    def _look(self, after_s: float) -> None:
        if self.transport.is_closing():
            return
        if is_gone(self.transport):
            self.transport.abort()
        else:
            after_s = min(after_s * 4, LOOK_AT_LEAST_S)
            self.loop.call_later(after_s, self._look, after_s)

    def _drop(self, count: int) -> None:
        if self._droppable is not None:
            self._droppable -= count
            if self._droppable < 0:
                self.transport.abort()

    def _refuse(self, why: str) -> None:
        self._deaf = True
        if self.pipeline and self.cycle.more_body and self._turn is not None:
            self.pipeline.popleft()  # the one that cannot be read never begins
            self.cycle = self.pipeline[0][0] if self.pipeline else self._turn
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.send_400_response(why)
        elif not cycle.more_body:
            cycle.keep_alive = False  # what cannot be read is the next request: those before it are answered first
        else:
            if cycle.response_started:
                self.transport.close()
            else:
                self.send_400_response(why)
            cycle.disconnected = True
            cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        self._answer(MalformedRequest(msg))

    def _answer(self, error: AppError) -> None:
        """Answer what never came to the application, and let the client take it."""
        problem = problem_of(error)
        request_id = os.urandom(16).hex()
        self._open.refused(problem.type.removeprefix(PREFIX))
        self.logger.warning("refused: %s", error, extra={"request_id": request_id})
        body = problem.model_dump_json(exclude_none=True).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        if isinstance(error, NotReady):
            headers.append((b"retry-after", b"%d" % error.retry_after))
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join((STATUS_LINE[problem.status], *lines, b"\r\n", body)))
        self._droppable = LINGER_BYTES
        self._unset_keepalive_if_required()
        self.transport.write_eof()
        self.timeout_keep_alive_task = self.loop.call_later(LINGER_S, self.transport.close)
