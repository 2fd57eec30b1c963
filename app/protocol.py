"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, which is fast, with the bounds that neither of them has.

It knows bytes and connections, and no route: what it refuses never reached the application, so no log line or count of a
request tells of it but its own warning.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from app.errors import MalformedRequest
from app.problems import MEDIA_TYPE, problem_of

HEAD_BYTES = 65_536  # of a request line with its headers, of trailers, of the framing between two bytes of a chunked body
HEADERS = 256  # each costs every reader of the headers a step; browsers send about 20
_TOO_LONG = f"the address, headers, trailers or chunk extensions have more than {HEAD_BYTES} bytes"


class BoundedHttpTools(HttpToolsProtocol):
    """One connection. Beyond what it inherits:

    - Heads, trailers and chunk extensions are bounded: the parser joins what comes in pieces, so 30 MB of one header took
      11 s of the loop.
    - A head must be complete `keep_alive_s` after the connection was made, and after its own first bytes; uvicorn itself
      waits for ever.
    - Trailers are dropped. uvicorn would append them to the headers that the application is already reading.
    - An offer to upgrade (h2c) is ignored (RFC 9110, section 7.8) and keeps its body. httptools would drop the body.
    - A request that cannot be read is answered with a problem document, and not in the middle of another answer.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._loose = 0  # bytes up to the end of a read since a head ended or the last byte of a body came
        self._head_bytes = 0
        self._in_head = False
        self._head_is_late = False  # its first bytes came without its last: the clock runs
        self._deaf = False  # refused: nothing more is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # uvicorn narrows it
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        self._loose += len(data)
        try:
            self._feed(data)
        except (httptools.HttpParserError, MalformedRequest) as error:
            ours = error if isinstance(error, MalformedRequest) else error.__context__  # raised in what the parser calls
            self._refuse(str(ours) if isinstance(ours, MalformedRequest) else "the request is no valid HTTP/1.1")
            return
        if self._loose > HEAD_BYTES:
            self._refuse(_TOO_LONG)
        elif self._in_head and not self._head_is_late:
            self._head_is_late = True
            self._start_clock()

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
        if len(self.headers) == HEADERS:
            raise MalformedRequest(f"there are more than {HEADERS} headers")
        super().on_header(name, value)

    def _count(self, *parts: bytes) -> None:
        """Of a head that ends in the read that it began in, `data_received` learns nothing."""
        self._head_bytes += sum(map(len, parts))
        if self._head_bytes > HEAD_BYTES:
            raise MalformedRequest(_TOO_LONG)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return  # `_feed` hears of it next
        self._in_head = self._head_is_late = False
        self._loose = 0
        self._unset_keepalive_if_required()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._in_head:
            super().on_message_complete()

    # the clock, and the end

    def _start_clock(self) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False  # a pipelined head is late: the request before it is answered first
        else:
            super().timeout_keep_alive_handler()

    def _refuse(self, why: str) -> None:
        self._deaf = True
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            self.send_400_response(why)
        elif not cycle.more_body:
            cycle.keep_alive = False  # what cannot be read is the next request: this one is answered first
        else:
            if cycle.response_started or self.pipeline:
                self.transport.close()
            else:
                self.send_400_response(why)
            cycle.disconnected = True
            cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        problem = problem_of(MalformedRequest(msg))
        request_id = os.urandom(16).hex()
        self.logger.warning("refused what cannot be read: %s", msg, extra={"request_id": request_id})
        body = problem.model_dump_json(exclude_none=True).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join((STATUS_LINE[problem.status], *lines, b"\r\n", body)))
        self.transport.close()
