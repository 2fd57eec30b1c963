"""One call over gRPC on its way through the service: the same gate, limits, errors, log line and counts as a request over HTTP.

A call is told to `app.middleware` as the HTTP/2 POST that it is. Its message is read late, after all that may refuse it. It
knows no protocol: what a method does is the method's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.access import Gate
from app.context import Deadline, RequestContext, context_of
from app.errors import BodyTimeout, BodyTooLarge, MalformedRequest
from app.grpc_turns import Turns
from app.grpc_wire import Bounds, check
from app.problems import DONE, PREFIX, grpc_code, log_fault, problem_of
from app.services import Services

READING = 16  # messages with images read at once, at most: each may hold as much as is allowed before we see a byte of it
PATIENCE_S = 2.0  # for one of them, where others wait
SMALL_READING = 2  # messages without images read at once
SMALL_BYTES = 65_536  # of such a one, which holds names and a reference
SMALL_WAITING = 64
SMALL_S = 2.0  # until it is there
SMALL_PATIENCE_S = 0.1
Log = Callable[[ASGIApp], ASGIApp]
_CALL = "sknet.grpc.call"
_HEADERS = frozenset({"x-request-id", "server-timing", "traceresponse"})  # of an HTTP answer, that the end of a call has as well


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a gRPC service.

    Args:
        path: as in the HTTP/2 request, and in counts and logs.
        like: method and path of the same call over HTTP, by which `app.access` knows who may make it.
        request: class of its message. work: makes the answer's message of it.
        images: whether it brings images, for which there must be room.
        bounds: what its message may hold, called when one is there.
    """

    path: str
    like: tuple[str, str]
    request: Any
    work: Callable[[Any, RequestContext], Awaitable[Any]]
    images: bool = False
    bounds: Callable[[], Bounds] = Bounds


@dataclass(slots=True)
class _Call:
    """One call, and what is to be answered to it."""

    method: Method
    servicer: Any
    status: int = 0
    text: str = ""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    data: bytes = b""

    def scope(self) -> dict[str, Any]:
        """As the HTTP request that it is."""
        host, _, port = unquote(self.servicer.peer()).partition(":")[2].rpartition(":")  # ipv6:%5B::1%5D:1234
        metadata = self.servicer.invocation_metadata() or ()
        return {
            "type": "http",
            "http_version": "2",
            "method": "POST",
            "path": self.method.path,
            "headers": [(name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in metadata],
            "client": (host.strip("[]"), int(port)) if port.isascii() and port.isdigit() else None,
            "route": self.method,
            _CALL: self,
        }

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            told = ((name.decode().lower(), value.decode()) for name, value in message["headers"])
            self.trailers += [(name, value) for name, value in told if name in _HEADERS]


class Calls:
    """Takes calls of every method.

    Args:
        gate: who may make them. log: puts `app.middleware.RequestLog` around what answers.
    """

    def __init__(self, services: Services, gate: Gate, log: Log) -> None:
        self._services = services
        self._gate = gate
        settings, proxies = services.settings, Config(self._answer, log_config=None).forwarded_allow_ips
        # As the server of HTTP does; its types are its own.
        self._log: Any = ProxyHeadersMiddleware(cast("Any", log(self._answer)), proxies)
        # Messages that are read may hold as much again as those that have been, and not more.
        reading = min(READING, settings.max_buffered_bytes // settings.max_batch_body_bytes)
        self._turns = {
            True: Turns(reading, settings.max_queue, PATIENCE_S),
            False: Turns(SMALL_READING, SMALL_WAITING, SMALL_PATIENCE_S),
        }

    def handler(self, method: Method) -> Any:
        """What the server calls. As one that takes a stream, since only such a one reads the message by itself."""

        async def handle(_: object, servicer: Any) -> bytes:
            call = _Call(method, servicer)
            await self._log(call.scope(), _silence, call.send)
            if call.status != DONE:
                code = getattr(grpc.StatusCode, grpc_code(call.status))
                await servicer.abort(code, call.text, tuple(call.trailers))
            servicer.set_trailing_metadata(tuple(call.trailers))
            return call.data

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _answer(self, scope: Scope, _: Receive, send: Send) -> None:
        call: _Call = scope[_CALL]
        context = context_of(scope)
        try:
            call.data = await self._work(call, scope, context)
            call.status = DONE
        except Exception as error:  # noqa: BLE001 - the table knows every error, and what is in none is a fault of ours
            self._refuse(call, error, scope, context)
        finally:
            self._services.room.give_back(context)
        await send({"type": "http.response.start", "status": call.status, "headers": []})

    def _refuse(self, call: _Call, error: Exception, scope: Scope, context: RequestContext) -> None:
        log_fault(error, scope)
        problem = problem_of(error)
        context.problem = problem.type.removeprefix(PREFIX)
        call.status, call.text = problem.status, problem.detail
        call.trailers.append(("problem", problem.type))
        retry_after: int | None = getattr(error, "retry_after", None)
        if retry_after is not None:
            call.trailers.append(("retry-after", str(retry_after)))
            call.trailers.append(("grpc-retry-pushback-ms", str(retry_after * 1000)))  # what a client's own retries heed

    async def _work(self, call: _Call, scope: Scope, context: RequestContext) -> bytes:
        method, services = call.method, self._services
        left_s: float | None = call.servicer.time_remaining()
        if left_s is not None and left_s < context.deadline.limit_s:
            context.deadline = Deadline(asyncio.get_running_loop().time() + left_s, left_s)
        verb, path = method.like
        refusal = self._gate({**scope, "method": verb, "path": path}) or services.room.refusal(1)
        if refusal is None and method.images:
            refusal = services.classifier.refusal(1, context.deadline)
        if refusal is not None:
            raise refusal
        answer = await method.work(
            await self._read(call, scope, context), context
        )  # which keeps the message no longer than it must
        data: bytes = answer.SerializeToString()
        return data

    async def _read(self, call: _Call, scope: Scope, context: RequestContext) -> Any:
        request = call.method.request()
        if not request.DESCRIPTOR.fields:  # a probe waits for nobody's message
            return request
        images, limit_s, until = call.method.images, context.deadline.limit_s, context.deadline.at
        most = self._services.settings.max_batch_body_bytes if images else SMALL_BYTES
        if not images:
            limit_s, until = min(SMALL_S, limit_s), min(asyncio.get_running_loop().time() + SMALL_S, until)
        peer, _ = scope["client"] or ("", 0)
        try:
            async with self._turns[images].turn(peer, until):
                data = await call.servicer.read()
        except TimeoutError:
            raise BodyTimeout(limit_s) from None
        if data is aio.EOF:  # the server ended a call whose message is too large; or the client left
            raise MalformedRequest(f"no message arrived, or one of more than {most} bytes")
        size = len(data)
        if size > most:
            del data  # no room is taken for it, and the error would keep it
            raise BodyTooLarge(most, size)
        self._services.room.take(context, size)
        try:
            check(data, request.DESCRIPTOR, call.method.bounds())
            request.ParseFromString(data)
        except DecodeError:
            raise MalformedRequest(f"the message is no {request.DESCRIPTOR.full_name}") from None
        return request


async def _silence() -> Message:
    raise AssertionError("nothing is received of a call")
