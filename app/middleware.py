"""What every request passes: an id, a deadline, a bounded body, a watch for clients that leave, a log line, the counts.

Pure ASGI, so that bodies stream and nothing is buffered here. Answers come from `app.problems`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.context import SCOPE_KEY, Deadline, RequestContext, context_of
from app.errors import AppError, BodyTimeout, BodyTooLarge, InvalidParameter, Overloaded
from app.metrics import Metrics
from app.problems import answer

logger = logging.getLogger("sknet.service")
access = logging.getLogger("sknet.access")

_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)  # W3C Trace Context, section 3.2.2
LINGER_S = 2.0  # how long a refused body is still read, to be thrown away
CLIENT_LEFT = "left"  # in logs and counts, where there is no status to tell


class RequestLog:
    """Outermost: gives each request its context, headers and log line, and answers what nothing else did."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, deadline_s: float, timed: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._timed = timed  # paths whose clients may lower the deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = Headers(scope=scope)
        context, error = self._context(headers, scope["path"])
        scope[SCOPE_KEY] = context
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = context.id
                if error is not None:
                    out["Connection"] = "close"  # answered without reading the body, if there is one
                out["Server-Timing"] = _server_timing(context, time.monotonic() - started)
            await send(message)

        try:
            if error is not None:
                await answer(error, scope, receive, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass  # nobody is there to answer; the log line says so
        except Exception as fault:
            logger.exception("request failed", extra={"request_id": context.id})
            if status is None:
                await answer(fault, scope, receive, send_with_headers)
            else:
                raise  # half an answer is out: the server must cut the connection
        finally:
            self._observe(scope, context, status, time.monotonic() - started)

    def _context(self, headers: Headers, path: str) -> tuple[RequestContext, AppError | None]:
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        limit_s, error = self._deadline_s, None
        timeout = headers.get("x-timeout-ms")
        if timeout is not None and path in self._timed:
            digits = timeout.lstrip("0")
            if digits.isascii() and digits.isdecimal():
                limit_s = min(limit_s, int(digits[:12]) / 1000)  # more digits than that are years
            else:
                error = InvalidParameter("X-Timeout-Ms", timeout, "a whole number of milliseconds, 1 or more")
        deadline = Deadline(asyncio.get_running_loop().time() + limit_s, limit_s)
        traceparent = headers.get("traceparent", "")
        return RequestContext(request_id, deadline, traceparent if _TRACEPARENT.fullmatch(traceparent) else None), error

    def _observe(self, scope: Scope, context: RequestContext, status: int | None, seconds: float) -> None:
        # The route's pattern, not the path: strangers must not be able to make new time series.
        refused = scope["path"] if scope["path"] in self._timed else "unmatched"  # before it came to a route
        route = getattr(scope.get("route"), "path", refused)
        self._metrics.requests.labels(route, status or CLIENT_LEFT).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if context.problem is not None:
            self._metrics.rejected.labels(context.problem).inc()
        fields = {
            "request_id": context.id,
            "traceparent": context.traceparent,
            "method": scope["method"],
            "path": scope["path"][:500],
            "status": status or CLIENT_LEFT,
            "problem": context.problem,
            "duration_ms": round(seconds * 1000, 2),
            "client": (scope.get("client") or ("", 0))[0],
        }
        access.info("%s %s %s", fields["method"], fields["path"], fields["status"], extra=fields)


class BodyLimits:
    """Refuses bodies that are too large, before reading where a length is announced; bounds all bodies together, and time."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_buffered_bytes: int,
        by_path: Mapping[str, int],
        retry_after: Callable[[], int],
    ) -> None:
        self._app = app
        self._retry_after = retry_after
        self._max_body_bytes = max_body_bytes
        self._max_buffered_bytes = max_buffered_bytes
        self._by_path = by_path
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = context_of(scope)
        limit = self._by_path.get(scope["path"], self._max_body_bytes)
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "")
        length = int(announced[:18]) if announced.isdecimal() else 0
        held = counted = 0
        expected = length > 0 or "transfer-encoding" in headers
        complete = False

        async def bounded_receive() -> Message:
            nonlocal counted, held, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(context.deadline.at):
                    message = await receive()
            except TimeoutError:
                raise BodyTimeout(context.deadline.limit_s) from None
            if message["type"] == "http.request":
                counted += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if counted > limit:
                    raise BodyTooLarge(limit, counted)
                if counted > held:
                    self._reserve(counted - held)
                    held = counted
            return message

        async def closing_send(message: Message) -> None:
            if message["type"] == "http.response.start" and expected and not complete:
                # The rest of the body is not read, so the connection cannot be used for another request.
                MutableHeaders(scope=message)["Connection"] = "close"
            last = message["type"] == "http.response.body" and not message.get("more_body", False)
            if not last or not expected or complete:
                await send(message)
                return
            # The whole answer goes out, then the rest of the body is thrown away for a moment: closing on unread bytes
            # resets the connection, and many clients then never see the answer (RFC 9112, section 9.6).
            await send({**message, "more_body": True})
            await _throw_away(receive)
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        refusal = self._refusal(length, limit)
        if refusal is not None:
            await answer(refusal, scope, receive, closing_send)
            return
        # Room is taken as bytes arrive, not as they are announced: silence must not keep others out.
        try:
            await self._app(scope, bounded_receive, closing_send)
        finally:
            self._buffered -= held

    def _refusal(self, announced: int, limit: int) -> AppError | None:
        if announced > limit:
            return BodyTooLarge(limit, announced)
        if self._buffered + announced > self._max_buffered_bytes:
            return Overloaded("bytes of bodies in flight", self._max_buffered_bytes, self._retry_after())
        return None

    def _reserve(self, count: int) -> None:
        if self._buffered + count > self._max_buffered_bytes:
            raise Overloaded("bytes of bodies in flight", self._max_buffered_bytes, self._retry_after())
        self._buffered += count


async def _throw_away(receive: Receive) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            message = await receive()
            while message["type"] == "http.request" and message.get("more_body", False):
                message = await receive()


class Departures:
    """Stops the work of a client that left: once the body is in, anything more that arrives can only be a disconnect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body_in = asyncio.Event()
        left: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        answering = False

        async def watched_receive() -> Message:
            if body_in.is_set():
                return await asyncio.shield(left)
            message = await receive()
            if message["type"] == "http.disconnect":
                left.set_result(message)
            if left.done() or not message.get("more_body", False):
                body_in.set()
            return message

        async def watched_send(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        async def watch() -> None:
            await body_in.wait()
            if not left.done():
                left.set_result(await receive())
            if not answering:
                work.cancel()

        work = asyncio.ensure_future(self._app(scope, watched_receive, watched_send))
        watcher = asyncio.ensure_future(watch())
        try:
            await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if left.done() and task is not None and not task.cancelling():
                raise ClientDisconnect from None  # cancelled by the watch, not from outside
            raise
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def _server_timing(context: RequestContext, total_s: float) -> str:
    """RFC-style `Server-Timing` (W3C); of a batch the longest of each phase, since its images ran side by side."""
    phases = {"queue": 0.0, "prepare": 0.0, "inference": 0.0}
    for t in context.timings:
        phases["queue"] = max(phases["queue"], t.queue_s)
        phases["prepare"] = max(phases["prepare"], t.prepare_s)
        phases["inference"] = max(phases["inference"], t.inference_s)
    phases["total"] = total_s
    return ", ".join(f"{name};dur={seconds * 1000:.2f}" for name, seconds in phases.items())
