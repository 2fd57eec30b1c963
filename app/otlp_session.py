"""The bounds of what a collector may answer: so many bytes, all of it within the time of its request.

The library that sends spans reads an answer to its end, however long that is, and its time is one for each read. Here both end.
Knows no span.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from functools import partial
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from requests.exceptions import ConnectionError as Disconnected
from urllib3.exceptions import HTTPError

if TYPE_CHECKING:
    from urllib3.connection import HTTPConnection
    from urllib3.connectionpool import HTTPConnectionPool

MOST_BYTES = 65_536  # of an answer, which has a status and few words; what comes after them is not read
_STEP_BYTES = 8192


def bounded_session() -> Session:
    """What posts to a collector. It raises, as any other, what `requests` does where none answers in time."""
    session = Session()
    session.headers["Accept-Encoding"] = "identity"  # a few bytes need no packing, and none are unpacked
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Bounded())
    return session


class _Bounded(HTTPAdapter):
    """Posts for one thread, as the library does, and within a number of seconds, which it always gives."""

    until = 0.0  # of the request under way, on the monotonic clock

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        """As the base class has it; the answer is read, or closed after as much of it as is allowed."""
        self.until = time.monotonic() + kwargs["timeout"]
        response = super().send(request, *args, **{**kwargs, "stream": True})
        try:
            response._content, response._content_consumed = _read(response), True  # where `requests` itself puts it
        except (HTTPError, OSError) as error:
            response.close()
            raise Disconnected(error, request=request) from error
        return response

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """As the base class has it, with connections whose answers have a time."""
        pool = super().get_connection_with_tls_context(*args, **kwargs)
        kind: Any = pool.ConnectionCls
        if not isinstance(kind, partial):  # the pool may be one that was asked for before
            pool.ConnectionCls = partial(self._connection, kind)  # type: ignore[assignment]
        return pool

    def _connection(self, kind: Callable[..., HTTPConnection], **given: Any) -> HTTPConnection:
        connection = kind(**given)
        connection.response_class = partial(_TimedResponse, self)  # type: ignore[assignment]
        return connection


def _read(response: Response) -> bytes:
    content = b""
    for piece in response.raw.stream(_STEP_BYTES, decode_content=False):
        content += piece
        if len(content) > MOST_BYTES:  # the status was told: that there is too much behind it makes it no failure
            response.close()
            break
    return content[:MOST_BYTES]


class _TimedResponse(HTTPResponse):
    """An answer that is read until a time, its head as well."""

    def __init__(self, adapter: _Bounded, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Timed(sock, adapter.until))


class _Timed(io.RawIOBase):
    """The bytes of a socket until a time: what drips has no longer than what is silent."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._until = until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_s = self._until - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer did not arrive in time")
        self._sock.settimeout(left_s)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()
